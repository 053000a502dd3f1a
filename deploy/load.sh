#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
Many workers at once pull a small version again and again from one service while versions keep coming.

  deploy/load.sh [options]

  --seconds N     how long (default 600)
  --workers N     how many (default 200)
  --no-install    do not look for missing packages
  -h, --help      this text

Prints pulls, versions, bytes, and memory and descriptors of both processes after the first third and at the end. Exit code 1: a pull failed,
a byte was wrong, or memory or descriptors grew (tests/load/load_test.cc says by how much they may). Installs what is missing and builds first.
TEXT
}

seconds=600 workers=200 install=yes
while (($#)); do
  case "$1" in
    --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
    --workers) workers=${2:?--workers needs a number}; shift 2 ;;
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
  esac
done

[[ $install == no ]] || deploy/install_dependencies.sh
cmake --preset release >/dev/null
cmake --build --preset release --target load_test
exec build/release/tests/load_test --seconds "$seconds" --workers "$workers"
