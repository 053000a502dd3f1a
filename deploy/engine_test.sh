#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
Tests with a real engine and a real trainer: vLLM servers for CPUs, and NeMo Automodel. Prints a table.

  deploy/engine_test.sh [options] [part ...]

  part          plug (its halves against vLLM's own base classes and reload), serving (versions arrive, and what goes
                wrong), parallel (two tensor-parallel ranks), training (vLLM's trainer half), offline (LLM in a program),
                automodel (a trainer's own model, on one rank and more), loop (deploy/examples/loop, and that nothing of
                it stays); default: all
  --quick       what deploy/test.sh runs: serving without a second server, parallel with one model, automodel
  --no-build    do not build; the programs are in build/release
  --no-install  do not look for missing packages, nor for vLLM and Automodel
  -h, --help    this text

Exit code 0: everything passed. 77: vLLM and Automodel cannot be had here; the reason is printed.
TEXT
}

build=yes install=yes quick=no parts=()
while (($#)); do
  case "$1" in
    --quick) quick=yes; shift ;;
    --no-build) build=no; shift ;;
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    plug | serving | parallel | training | offline | automodel | loop) parts+=("$1"); shift ;;
    *) echo "$0: unknown option or part '$1'; see --help" >&2; exit 2 ;;
  esac
done
if [[ $quick == yes ]]; then parts=(plug serving parallel automodel); fi
((${#parts[@]})) || parts=(plug serving parallel training offline automodel loop)

venv=build/engine-venv
[[ $install == no ]] || deploy/get_engine.sh || exit $?
[[ -x $venv/bin/python ]] || { echo "Skipped: no vLLM and no Automodel, see deploy/get_engine.sh"; exit 77; }
if [[ $build == yes ]]; then
  [[ $install == no ]] || deploy/install_dependencies.sh
  cmake --preset release >/dev/null
  cmake --build --preset release --target refit-server refit refit_python
fi

# Two lanes run at the same time, each with a model of its own, because a server's start keeps only one core busy.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
has() { [[ " ${parts[*]} " == *" $1 "* ]]; }
run() {
  local name=$1 selection=$2
  shift 2
  PYTHONPATH=build/release/python "$venv/bin/python" -B -m pytest -q -rs -W ignore -p no:cacheprovider \
    -k "$selection" "$@" >"$logs/$name" 2>&1
}
vllm=()
for part in serving parallel training offline; do
  if has "$part"; then vllm+=("tests/engines/vllm_$part.py"); fi
done
qwen3='qwen3' gemma4_moe='gemma4_moe'
if [[ $quick == yes ]]; then
  qwen3+=' and not begins_with_the_version and not qwen3-rank0'
  gemma4_moe+=' and not begins_with_the_version and not both_or_none'
fi
first_lane() {
  local failed=0
  if ((${#vllm[@]})); then run qwen3 "$qwen3" "${vllm[@]}" || failed=1; fi
  if has plug; then run plug installed client/python/tests/test_integrations_vllm*.py || failed=1; fi
  return "$failed"
}
second_lane() {
  local failed=0
  if ((${#vllm[@]})); then run gemma4_moe "$gemma4_moe" "${vllm[@]}" || failed=1; fi
  if has automodel; then run automodel test tests/engines/automodel_*.py || failed=1; fi
  if has loop; then run loop test tests/engines/loop_ends.py || failed=1; fi
  return "$failed"
}
first_lane & first=$!
failed=0
second_lane || failed=1
wait "$first" || failed=1
if ((failed)); then cat "$logs"/*; else sed -n '/= engines =/,$p' "$logs"/*; fi
exit "$failed"
