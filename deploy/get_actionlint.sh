#!/usr/bin/env bash
# Builds actionlint from the Go module proxy into build/tools and prints its path. Exit code 77: not possible here, with the
# reason on stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/go_tool.sh
go_tool actionlint github.com/rhysd/actionlint/cmd/actionlint v1.7.7 300
