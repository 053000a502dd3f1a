#!/usr/bin/env bash
# What a person does with grpcurl works: list, describe, every inspect call, a small pull decoded as JSON.
#   grpcurl_test.sh BIN_DIR       exit code 77: no grpcurl here
set -euo pipefail
bin=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
grpcurl=$(PATH=$root/build/tools:$PATH command -v grpcurl) || {
  echo "skipped: no grpcurl in build/tools or on PATH; deploy/get_grpcurl.sh builds it where Go is installed"
  exit 77
}

scratch=$(mktemp -d)
server_process=
finish() {
  local code=$?
  trap - EXIT
  if [[ -n $server_process ]]; then kill "$server_process" 2>/dev/null || true; wait "$server_process" || code=1; fi
  ((code == 0)) || tail -n 30 "$scratch"/*.log
  rm -rf "$scratch"
  exit "$code"
}
trap finish EXIT

mkfifo "$scratch/port"
exec 3<>"$scratch/port"
"$bin/refit-server" --listen 127.0.0.1:0 --port-file "$scratch/port" >"$scratch/server.log" 2>&1 3>&- &
server_process=$!
read -r -t 20 port <&3
server=127.0.0.1:$port
"$bin/refit" push --server "$server" --version 7 --synthetic gemma4_tiny --seed 3 >"$scratch/push.log" 2>&1

call() { "$grpcurl" -plaintext -max-time 20 "$@"; }

# expect "what" PATTERN TEXT: TEXT has a line that matches PATTERN.
checks=0
expect() {
  if ! grep -qE -- "$2" <<<"$3"; then
    printf 'FAILED: %s: expected a line matching %s in\n%s\n' "$1" "$2" "${3:0:2000}"
    exit 1
  fi
  checks=$((checks + 1))
}

services=$(call "$server" list)
for service in PushService PullService InspectService; do
  expect "list" "^refit\.v1\.$service$" "$services"
done
expect "list" "^grpc\.health\.v1\.Health$" "$services"
expect "describe push" "rpc Push \( stream .refit.v1.PushRequest \) returns \( stream .refit.v1.PushResponse \)" \
  "$(call "$server" describe refit.v1.PushService)"
expect "describe pull" "rpc Pull \( .refit.v1.PullRequest \) returns \( stream .refit.v1.PullResponse \)" \
  "$(call "$server" describe refit.v1.PullService)"
expect "describe inspect" "rpc DescribeTensor" "$(call "$server" describe refit.v1.InspectService)"
expect "describe a message" "bytes payload = 15;" "$(call "$server" describe refit.v1.Chunk)"

expect "describe all" "rpc Check \( .grpc.health.v1.HealthCheckRequest \)" "$(call "$server" describe)"
expect "health" '"status": "SERVING"' "$(call "$server" grpc.health.v1.Health/Check)"
expect "health of one service" '"status": "SERVING"' \
  "$(call -d '{"service": "refit.v1.PullService"}' "$server" grpc.health.v1.Health/Check)"

inspect() { call -d "$2" "$server" "refit.v1.InspectService/$1"; }
info=$(inspect GetServerInfo '{}')
expect "server info" '"software_version": "[0-9]+\.[0-9]+\.[0-9]+"' "$info"
expect "server info" '"gemma4_moe"' "$info"
expect "server info" 'gRPC [0-9]' "$info"
expect "server info" '"memory_budget_bytes": "[1-9][0-9]*"' "$info"
versions=$(inspect ListVersions '{}')
expect "versions" '"version": "7"' "$versions"
expect "versions" '"state": "VERSION_STATE_COMMITTED"' "$versions"
expect "versions" '"manifest_digest": "[0-9]+"' "$versions"
description=$(inspect DescribeVersion '{"model": "default", "version": {"number": 7}, "page_size": 3}')
expect "describe version" '"next_page_token": ".+"' "$description"
((3 == $(grep -c '"name":' <<<"$description"))) || { echo "FAILED: expected a page of 3 entries"; exit 1; }

# One small tensor: its description, and its bytes through a pull.
name=model.language_model.layers.0.input_layernorm.weight
tensor=$(inspect DescribeTensor "{\"model\": \"default\", \"name\": \"$name\", \"preview_elements\": 4}")
expect "describe tensor" "\"name\": \"$name\"" "$tensor"
expect "describe tensor" '"elements": "[1-9][0-9]*"' "$tensor"
expect "describe tensor" '"mean":' "$tensor"
bytes=$(grep -m 1 -oE '"bytes": "[0-9]+"' <<<"$tensor" | grep -oE '[0-9]+')

pulled=$(call -d "{\"model\": \"default\", \"version\": {\"number\": 7}, \"names\": [\"$name\"], \"worker\": \"grpcurl\"}" \
  "$server" refit.v1.PullService/Pull)
expect "pull" '"header":' "$pulled"
expect "pull" "\"name\": \"$name\"" "$pulled"
expect "pull" '"tensor_digest": "[0-9]+"' "$pulled"
expect "pull" "\"sent_bytes\": \"$bytes\"" "$pulled"
payload=$(grep -oE '"payload": "[^"]+"' <<<"$pulled" | cut -d '"' -f 4 | base64 -d | wc -c)
((payload == bytes)) || { echo "FAILED: the pull brought $payload bytes of $name, expected $bytes"; exit 1; }
workers=$(inspect ListWorkers '{}')
expect "workers" '"name": "grpcurl"' "$workers"
expect "workers" '"state": "WORKER_STATE_COMPLETE"' "$workers"

manifest=$(call -d '{"model": "default", "version": {"latest": true}, "filter": "layers\\.0\\."}' \
  "$server" refit.v1.PullService/GetManifest)
expect "manifest" "\"name\": \"$name\"" "$manifest"
expect "manifest" '"last": true' "$manifest"
# A watch has no end of its own: grpcurl ends it.
watched=$(call -max-time 2 -d '{"model": "default", "worker": "watcher"}' "$server" refit.v1.PullService/WatchVersions 2>&1 || true)
expect "watch" '"version": "7"' "$watched"
expect "watch" 'DeadlineExceeded' "$watched"

# Errors come with a code and a message.
wrong=$(call -d '{"model": "default", "version": {"number": 99}}' "$server" refit.v1.PullService/GetManifest 2>&1 || true)
expect "unknown version" 'Code: NotFound' "$wrong"
expect "unknown version" 'Message: .*99' "$wrong"

echo "grpcurl: $checks checks passed"
