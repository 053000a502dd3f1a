#!/usr/bin/env bash
# Builds the Python package's wheel as pip does, installs it into a fresh environment and tests it there.
#
#   deploy/python_wheel.sh [--out DIR]     DIR: where the wheel is put; default build/wheel
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/wheel
case "${1:-}" in
  --out) out=${2:?--out needs a folder} ;;
  -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;;
  "") ;;
  *) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
esac

deploy/install_dependencies.sh no-torch
python=/usr/bin/python3
[[ -x $python ]] || python=python3
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"$python" -m venv "$venv"
"$venv/bin/pip" wheel -q --no-deps -w "$out" ./client/python
"$venv/bin/pip" install -q --no-index --force-reinstall "$out"/refit-*.whl
"$venv/bin/pip" install -q pytest numpy
"$venv/bin/python" -B -m pytest -q -rs -p no:cacheprovider client/python/tests
ls -l "$out"/refit-*.whl
