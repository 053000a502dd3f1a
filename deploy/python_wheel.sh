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
# Checks the metadata that installers read.
"$venv/bin/python" - <<'EOF'
from importlib.metadata import distribution, metadata
assert metadata("refit")["License-Expression"] == "Apache-2.0", metadata("refit").items()
licence = [file for file in distribution("refit").files if file.name == "LICENSE"]
assert licence and "Apache License" in licence[0].read_text(), "the wheel has no LICENSE"
EOF
"$venv/bin/python" -B -m pytest -q -rs -p no:cacheprovider client/python/tests
ls -l "$out"/refit-*.whl
