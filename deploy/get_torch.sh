#!/usr/bin/env bash
# Puts a current torch from PyPI, with what the Python tests need, into build/torch-venv.
#
# It takes 6 GB, nearly all of it for GPUs. Exit code 77: it cannot be had here; the reason is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

what="current torch" venv=build/torch-venv needed_gb=8
proof='import numpy, pytest, safetensors, torch'
source deploy/venv.sh

is_there || install_packages torch numpy pytest safetensors
