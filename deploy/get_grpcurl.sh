#!/usr/bin/env bash
# Builds grpcurl from the Go module proxy into build/tools and prints its path. Exit code 77: not possible here, with the reason on stderr.
set -euo pipefail
version=v1.9.1
tools=$(cd "$(dirname "$0")/.." && pwd)/build/tools

if [[ ! -x $tools/grpcurl ]]; then
  if ! command -v go >/dev/null; then
    echo "grpcurl: skipped, Go is not installed (it is built with 'go install')" >&2
    exit 77
  fi
  mkdir -p "$tools"
  echo "grpcurl: building $version with $(go env GOVERSION)" >&2
  if ! GOBIN=$tools timeout 300 go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$version" >"$tools/go.log" 2>&1; then
    tail -n 5 "$tools/go.log" >&2
    echo "grpcurl: skipped, 'go install' failed; its last lines are above" >&2
    exit 77
  fi
fi
echo "$tools/grpcurl"
