#!/usr/bin/env bash
# Builds helm from the Go module proxy into build/tools and prints its path. Exit code 77: not possible here, with the
# reason on stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/go_tool.sh
go_tool helm helm.sh/helm/v3/cmd/helm v3.22.0 900
