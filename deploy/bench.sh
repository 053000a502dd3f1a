#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
Measures everything that the README claims, in one run, against what it is compared with.

  deploy/bench.sh [options]

  --only NAME,...  some of kernels, delta, pull, pipeline, cast, fan-out, in-process, whole, growth, small, experts, ranks,
                   relays, streams, python
  --rounds N       rounds that count, after one that warms up (default 5)
  --layers N       layers of the synthetic model, instead of each section's own number
  --out DIR        where bench.json, bench.md and bench.png are written (default build/bench)
  --smoke          tiny sizes and one round, in under a minute: does everything run? Installs nothing that is only
                   compared with
  --no-install     do not look for missing packages
  -h, --help       this text

Installs what is missing and builds first. What it is compared with and cannot be had is printed as "not measured".
Takes about 15 GB of memory; let nothing else run. Exit code 1: a program of this project failed.
TEXT
}

install=yes groups=(bench) arguments=()
while (($#)); do
  case "$1" in
    --only | --rounds | --layers | --out) arguments+=("$1" "${2:?"$1 needs a value"}"); shift 2 ;;
    --smoke) arguments+=("$1") groups=(); shift ;;
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
  esac
done

# Debian's packages belong to the system's Python.
python=/usr/bin/python3
[[ -x $python ]] || python=python3

# Arrow Flight is not a Debian package. Without it, its row says so.
install_flight() {
  local venv=build/bench-venv
  if [[ -x $venv/bin/python ]] && "$venv/bin/python" -c 'import pyarrow.flight' 2>/dev/null; then
    return
  fi
  if ! { "$python" -m venv "$venv" && "$venv/bin/pip" install --quiet pyarrow 'numpy>=2'; }; then
    echo "pyarrow cannot be installed: Arrow Flight is not measured." >&2
    rm -rf "$venv"
  fi
}

if [[ $install == yes ]]; then
  deploy/install_dependencies.sh "${groups[@]}"
  ((${#groups[@]} == 0)) || install_flight
fi
cmake --preset release >/dev/null
programs=(refit-server refit refit-torch bench-trainer bench-worker bench-paced-proxy bench-embedded bench-kernels bench-delta bench-raw-tcp bench-grpc-plain)
cmake --build --preset release --target "${programs[@]/#/bin/}"
exec "$python" tests/bench/bench.py "${arguments[@]}"
