#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
Fuzzes with libFuzzer (clang, address and undefined-behaviour sanitizers), one target after the other, and prints what was tried.

  deploy/fuzz.sh [options] [TARGET...]

  TARGET          adapters, box, chunk_codec, delta, families, python_regex, safetensors, service, shared_segment; default: all
  --seconds N     for each target (default 60)
  --no-install    do not look for missing packages
  -h, --help      this text

Begins at the seeds in tests/fuzz/corpus and at what earlier runs found (build/fuzz/corpus). Exit code 1: an input crashed, leaked, or took
longer than 25 s; it is in build/fuzz/crashes/TARGET. Fix it, and commit it as tests/fuzz/corpus/TARGET/crash-<what it was>: every test run
tries it again from then on.
TEXT
}

all=(adapters box chunk_codec delta families python_regex safetensors service shared_segment)
seconds=60 install=yes targets=()
while (($#)); do
  case "$1" in
    --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
    *)
      [[ " ${all[*]} " == *" $1 "* ]] || { echo "$0: no target '$1'; there are ${all[*]}" >&2; exit 2; }
      targets+=("$1"); shift ;;
  esac
done
((${#targets[@]})) || targets=("${all[@]}")

[[ $install == no ]] || deploy/install_dependencies.sh fuzz
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz

build=$PWD/build/fuzz
symbolizer=$(command -v llvm-symbolizer-14 || true)
export ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=1${symbolizer:+:external_symbolizer_path=$symbolizer}
export UBSAN_OPTIONS=print_stacktrace=1

# The number after $1 in the log, or 0.
statistic() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1 | grep . || echo 0; }
features() { sed -n 's/.* ft: \([0-9]*\) .*/\1/p' "$log"; }

rows=() failed=no
for target in "${targets[@]}"; do
  corpus=$build/corpus/$target crashes=$build/crashes/$target log=$build/$target.log
  rm -rf "$crashes"
  mkdir -p "$corpus" "$crashes"
  options=(-max_total_time="$seconds" -max_len=4096 -timeout=25 -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$crashes/")
  # gRPC's threads allocate and free memory meanwhile, so the leak check after each input would be meaningless.
  [[ $target != service ]] || options+=(-detect_leaks=0)
  echo "$target: $seconds s, log in ${log#"$PWD/"}"
  "$build/fuzz/$target" "${options[@]}" "$corpus" "tests/fuzz/corpus/$target" >"$log" 2>&1 || failed=yes
  found=$(find "$crashes" -type f | wc -l)
  first=$(features | head -n 1) last=$(features | tail -n 1)
  rows+=("$(printf '%-16s %12s %9s %13s %9s' "$target" "$(statistic number_of_executed_units)" "$(statistic average_exec_per_sec)" \
    "$((${last:-0} - ${first:-0}))" "$found")")
  ((found == 0)) || { grep -m 1 -E 'ERROR|SUMMARY|runtime error|FUZZ|_fuzz.cc:' "$log" >&2 || true; tail -n 5 "$log" >&2; }
done

printf '\n%-16s %12s %9s %13s %9s\n' target executions 'each s' 'new features' crashes
printf '%s\n' "${rows[@]}"
if [[ $failed == yes ]]; then
  echo "Some input crashed: see build/fuzz/crashes and build/fuzz/*.log; run it again with build/fuzz/fuzz/TARGET FILE" >&2
  exit 1
fi
