#!/usr/bin/env bash
# Builds grpcurl from the Go module proxy into build/tools and prints its path. Exit code 77: not possible here, with the
# reason on stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/go_tool.sh
go_tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl v1.9.1 300
