#!/usr/bin/env bash
# One rank against eight: time to push one version, and the service's peak memory against the bytes that it must hold.
#
#   tests/bench/ranks.sh [--layers N] [--rounds N] [--ranks N]
#
# Needs a built release preset. Versions come from one rank and from N processes in turn, into a service that keeps one
# version; after the first of each, memory is warm. Prints a line a push, the medians' ratio, and the peak.
set -euo pipefail

layers=2 rounds=5 ranks=8
while (($#)); do
  case "$1" in
    --layers) layers=${2:?}; shift 2 ;;
    --rounds) rounds=${2:?}; shift 2 ;;
    --ranks) ranks=${2:?}; shift 2 ;;
    *) echo "$0: unknown option '$1'" >&2; exit 2 ;;
  esac
done
cd "$(dirname "$0")/../.."
bin=$PWD/build/release/bin
dir=$(mktemp -d)
server=''
cleanup() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  wait || true
  rm -rf "$dir"
}
trap cleanup EXIT

# The experts and what goes with them: embeddings and vision tower would be a one-rank affair.
what=(--synthetic gemma4_26b_a4b --layers "$layers"
      --exclude-key-regex 'lm_head|model\.(vision_tower|embed_vision|language_model\.embed_tokens)')

start_service() {
  rm -f "$dir/port"
  "$bin/refit-server" --listen 127.0.0.1:0 --port-file "$dir/port" --memory 20GiB --retain 1 --log-level error &
  server=$!
  while [[ ! -s $dir/port ]]; do kill -0 "$server"; done
  address=127.0.0.1:$(cat "$dir/port")
}

stop_service() {
  kill "$server"
  wait "$server" || true
  server=''
}

now() { date +%s.%N; }

push_one() { "$bin/refit" push -s "$address" -v "$1" -q "${what[@]}" --seed "$1"; }

push_ranks() {
  local pids=() rank pid
  for ((rank = 0; rank < ranks; ++rank)); do
    "$bin/refit" push -s "$address" -v "$1" -q "${what[@]}" --seed "$1" --rank "$rank" --world "$ranks" \
      --ep-size "$((ranks / 2))" --ep-shard-size 2 --fsdp-size "$ranks" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
}

peak_of() { awk '/VmHWM/ { print $2 * 1024 }' "/proc/$1/status"; }
hf_bytes() { "$bin/refit" versions -s "$address" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["versions"][-1]["bytes"])'; }

# Peak memory: a fresh service and one version.
start_service
push_ranks 1
bytes=$(hf_bytes)
peak=$(peak_of "$server")
"$bin/refit" pull -s "$address" -v 1 -q --filter 'layers\.0\.' --verify-synthetic gemma4_26b_a4b --layers "$layers" --seed 1
stop_service

# Time, in turn.
start_service
version=0
for ((round = 0; round <= rounds; ++round)); do
  for how in push_one push_ranks; do
    version=$((version + 1))
    begin=$(now)
    $how $version
    end=$(now)
    seconds=$(echo "$end - $begin" | bc)
    # The first of each touches fresh memory.
    ((round == 0)) || echo "$seconds" >>"$dir/$how"
    printf '%-10s round %d  %6.2f s%s\n' "${how#push_}" "$round" "$seconds" "$( ((round == 0)) && echo '  (warms up)' || true)"
  done
done
python3 - "$dir" "$ranks" "$bytes" "$peak" <<'PY'
import statistics, sys
folder, ranks, size, peak = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
one, many = (statistics.median(map(float, open(f"{folder}/{how}"))) for how in ("push_one", "push_ranks"))
print(f"HF bytes {size / 1e9:.2f} GB; peak memory with {ranks} ranks: HF bytes + {(peak - size) / 2**20:.0f} MiB")
print(f"median push: one rank {one:.2f} s, {ranks} ranks {many:.2f} s: {one / many:.2f} times as fast")
PY
