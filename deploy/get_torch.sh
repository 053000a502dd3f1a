#!/usr/bin/env bash
# Puts a current torch from PyPI, with what the Python tests need, into build/torch-venv.
#
# It takes 6 GB, nearly all of it for GPUs. Exit code 77: it cannot be had here; the reason is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=build/torch-venv
needed_kb=$((8 << 20))

python=/usr/bin/python3
[[ -x $python ]] || python=python3

works() { "$venv/bin/python" -c 'import numpy, pytest, safetensors, torch' 2>/dev/null; }
give_up() {
  echo "No torch from PyPI: $1. Its tests are skipped." >&2
  rm -rf "$venv"
  exit 77
}

[[ ! -x $venv/bin/python ]] || ! works || exit 0
mkdir -p build
free_kb=$(df --output=avail -k build | tail -n 1)
((free_kb >= needed_kb)) || give_up "it needs $((needed_kb >> 20)) GB of disk, there are $((free_kb >> 20))"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "Installing torch from PyPI into $venv"
{ "$python" -m venv "$work/uv" && "$work/uv/bin/pip" install -q uv && "$work/uv/bin/uv" venv -q --clear --python "$python" "$venv" &&
  timeout 600 "$work/uv/bin/uv" pip install -q --no-cache --python "$venv/bin/python" torch numpy pytest safetensors; } >"$work/log" 2>&1 ||
  give_up "$(tail -n 1 "$work/log")"
works || give_up "it cannot be imported"
