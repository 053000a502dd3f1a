#!/usr/bin/env bash
# Includes run one way: a room (a folder) may include rooms of the lines above its own, and no others. Server and client
# know each other nowhere but in Python's package, which has both. Prints what does not hold, and fails. Exit code 0:
# nothing found. Part of deploy/lint.sh, and a test.
set -euo pipefail
cd "$(dirname "$0")/.."

order='
common/limits common/process common/certificates common/terminal
common/tensor
common/wire common/delta common/safetensors
common/adapters
common/net
server/process
server/access
server/store
server/spool server/fleet
server/pull server/push
server/watch
server
client
client/torch client/cli
client/python/bindings
'

declare -A level
depth=0
while read -r -a rooms; do
  for room in "${rooms[@]}"; do level[$room]=$depth; done
  depth=$((depth + 1))
done <<<"$order"

side() { case $1 in client/python*) echo both ;; client*) echo client ;; server*) echo server ;; *) echo common ;; esac; }

failed=no
complain() { echo "$1"; failed=yes; }
while IFS=: read -r file include; do
  from=${file%/*} to=${include#*\"} to=${to%/*}
  [[ $from == "$to" ]] && continue
  if [[ -z ${level[$from]:-} ]]; then complain "$file: the room $from is not in the order of deploy/check_rooms.sh"; continue; fi
  if [[ -z ${level[$to]:-} ]]; then complain "$file: $include: the room $to is not in the order"; continue; fi
  ((level[$from] > level[$to])) || complain "$file: $include: $from may not include $to"
  case $(side "$from")-$(side "$to") in
    server-client | client-server) complain "$file: $include: server and client do not know each other" ;;
  esac
done < <(grep -rE '^#include "(common|server|client)/' common server client --include='*.h' --include='*.cc')
[[ $failed == no ]]
