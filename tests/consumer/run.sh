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

# What is a wheel's is not in a prefix.
strays=$(find "$scratch/prefix" -name '*_refit*.so' -o -name '*.py')
if [[ -n $strays ]]; then echo "the prefix has parts of the Python package: $strays" >&2; exit 1; fi
# A client needs nothing of the service's; who wants the service is told what is missing.
lacking=(-DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_DISABLE_FIND_PACKAGE_prometheus-cpp=ON)
cmake -S "$(dirname "$0")" -B "$scratch/lacking" "${lacking[@]}" "$@" >/dev/null
if cmake -S "$(dirname "$0")" -B "$scratch/lacking_server" "${lacking[@]}" -DCONSUMER_COMPONENTS=server "$@" \
  >"$scratch/said" 2>&1 || ! grep -q "prometheus-cpp" "$scratch/said"; then
  cat "$scratch/said" >&2
  echo "find_package(refit COMPONENTS server) did not say that prometheus-cpp is missing" >&2
  exit 1
fi
cmake -S "$(dirname "$0")" -B "$scratch/server" -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCONSUMER_COMPONENTS=server "$@" >/dev/null
