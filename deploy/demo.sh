#!/usr/bin/env bash
set -euo pipefail

usage() {
  cat <<'TEXT'
The main job, shown: a trainer pushes versions, two workers pull each while it is being pushed, everything is verified bit for bit.
The third version is a training step after the second: a worker that has the second as a file receives only what has changed.

  deploy/demo.sh [options] [PATH]

  PATH            a safetensors file, or a checkpoint folder (model.safetensors.index.json), of native tensors:
                  two versions of it. Default: synthetic Gemma4 26B-A4B tensors, real names and shapes, values made on the fly
  --layers N      layers of the synthetic model (default 2 of its 30)
  --everything    also the embeddings, the lm_head tied to them and the vision tower of the synthetic model, which
                  otherwise are left out to stay under a minute
  --workers N     workers that pull at the same time (default 2)
  --memory SIZE   what the service may use for tensors (default 20GiB)
  --port N        port on 127.0.0.1 (default: a free one)
  --no-install    do not look for missing packages
  -h, --help      this text

Installs what is missing and builds first. Exit code 0: every worker got every byte of its versions.
TEXT
}

layers=2 workers=2 memory=20GiB port=0 install=yes path='' exclude='lm_head|model\.(vision_tower|embed_vision|language_model\.embed_tokens)'
while (($#)); do
  case "$1" in
    --layers) layers=${2:?--layers needs a number}; shift 2 ;;
    --everything) exclude=''; shift ;;
    --workers) workers=${2:?--workers needs a number}; shift 2 ;;
    --memory) memory=${2:?--memory needs a size}; shift 2 ;;
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
    *) [[ -z $path ]] || { echo "$0: one PATH, not '$path' and '$1'" >&2; exit 2; }; path=$1; shift ;;
  esac
done
if [[ -n $path ]]; then
  path=$(realpath -e -- "$path")
fi
cd "$(dirname "$0")/.."

[[ $install == no ]] || deploy/install_dependencies.sh
cmake --preset release >/dev/null
cmake --build --preset release --target bin/refit-server bin/refit refit_python
bin=$PWD/build/release/bin

logs=$(mktemp -d)
finish() {
  local code=$? children
  trap - EXIT
  children=$(jobs -p)
  if [[ -n $children ]]; then
    # shellcheck disable=SC2086  # one argument a child
    kill $children 2>/dev/null || true
    wait
  fi
  if ((code == 0)); then
    rm -rf "$logs"
  else
    for log in "$logs"/*.log; do printf '\n== %s\n' "$log" >&2; tail -n 20 "$log" >&2; done
    printf '\nThe demo failed. Logs: %s\n' "$logs" >&2
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkfifo "$logs/port"
exec 3<>"$logs/port"
# As between two hosts. On one host workers map the service's memory: nothing is moved.
"$bin/refit-server" --listen "127.0.0.1:$port" --port-file "$logs/port" --retain 2 --memory "$memory" \
  --no-shared-memory >"$logs/server.log" 2>&1 3>&- &
server_process=$!
read -r -t 20 port <&3
exec 3>&-
server=127.0.0.1:$port
echo "refit-server listens on $server"

# What worker 1 has, as a file.
held=$logs/worker-1.safetensors

# Pushes version $1 while all workers pull it, shows the whole fleet, and waits for all of them. The synthetic values
# are those of --seed $2, after $3 training steps.
refit_version() {
  local version=$1 seed=$2 steps=$3 source check finished files
  local -A parties=()
  if [[ -n $path ]]; then
    source=("$path") check=(--verify "$path")
  else
    local -a model=(gemma4_26b_a4b --layers "$layers" --seed "$seed" ${exclude:+--exclude-key-regex "$exclude"})
    ((steps == 0)) || model+=(--step "$steps" --change 0.01)
    source=(--synthetic "${model[@]}") check=(--verify-synthetic "${model[@]}")
  fi
  printf '\nVersion %s: %s\n' "$version" "${source[*]}"

  "$bin/refit" watch --server "$server" --fleet --until "$version" --pulls "$workers" &
  local watch=$!
  for ((worker = 1; worker <= workers; ++worker)); do
    files=()
    ((worker > 1 || version < 2)) || files=(--out "$held")
    [[ ! -e $held ]] || ((worker > 1)) || files+=(--base "$held")
    "$bin/refit" pull --server "$server" --version "$version" --wait 60 --worker "worker-$worker" "${check[@]}" "${files[@]}" \
      >"$logs/version-$version-worker-$worker.log" 2>&1 &
    parties[$!]=under_way
  done
  "$bin/refit" push --server "$server" --version "$version" "${source[@]}" >"$logs/version-$version-push.log" 2>&1 &
  parties[$!]=under_way

  # The first process that fails ends the demo.
  while ((${#parties[@]} > 0)); do
    wait -n -p finished "${!parties[@]}"
    unset "parties[$finished]"
  done
  wait "$watch"
  for ((worker = 1; worker <= workers; ++worker)); do
    echo "worker-$worker: $(tail -n 1 "$logs/version-$version-worker-$worker.log")"
  done
}

refit_version 1 1 0
refit_version 2 2 0
[[ -n $path ]] || workers=1 refit_version 3 2 1  # by the worker that has a file: to make such values takes long

echo
"$bin/refit" status --server "$server"
kill -TERM "$server_process"
wait "$server_process"
echo "All versions arrived, verified bit for bit."
