#!/usr/bin/env bash
# Installs a build into a folder of its own; builds and runs a project against it.
#   run.sh BUILD_DIR [extra configure arguments]
set -euo pipefail
build=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cmake --install "$build" --prefix "$scratch/prefix" >"$scratch/install.log" || { cat "$scratch/install.log"; exit 1; }
cmake -S "$(dirname "$0")" -B "$scratch/build" -DCMAKE_PREFIX_PATH="$scratch/prefix" "$@"
cmake --build "$scratch/build"
"$scratch/build/consumer"
"$scratch/prefix/bin/refit" --help >/dev/null
"$scratch/prefix/bin/refit-server" --help >/dev/null
