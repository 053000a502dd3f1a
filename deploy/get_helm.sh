#!/usr/bin/env bash
# Builds helm from the Go module proxy into build/tools and prints its path. Exit code 77: not possible here, with the
# reason on stderr.
set -euo pipefail
version=v3.22.0
tools=$(cd "$(dirname "$0")/.." && pwd)/build/tools

if [[ ! -x $tools/helm ]]; then
  if ! command -v go >/dev/null; then
    echo "helm: skipped, Go is not installed (it is built with 'go install')" >&2
    exit 77
  fi
  mkdir -p "$tools"
  echo "helm: building $version with $(go env GOVERSION)" >&2
  if ! GOBIN=$tools timeout 900 go install "helm.sh/helm/v3/cmd/helm@$version" >"$tools/helm.log" 2>&1; then
    tail -n 5 "$tools/helm.log" >&2
    echo "helm: skipped, 'go install' failed; its last lines are above" >&2
    exit 77
  fi
fi
echo "$tools/helm"
