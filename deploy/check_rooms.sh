#!/usr/bin/env bash
# Checks the order of includes: a room (a folder) may only include rooms from the lines above its own. A public header,
# #include "refit/...", may only include public headers. Server and client may not include each other, except in
# server/relay, which is made of both, and above it: in the program and in Python's package. Prints each violation, and fails. Exit code 0: nothing found. Part of
# deploy/lint.sh, and a test.
set -euo pipefail
cd "$(dirname "$0")/.."

order='
common/include
common/limits common/process common/certificates common/terminal
common/tensor
common/wire common/delta common/safetensors
common/adapters
common/net
server/include
server/process server/descriptors
server/access
server/store
server/spool server/fleet
server/pull server/push
server/watch
server
server/torch
client/include
client/calls
client/native
client/trainer client/worker client/inspector
client/torch client/cli/run
client/cli/terminal
client/cli/options
client/cli/commands
client/cli
server/relay
server/program client/python/bindings
'

declare -A level
depth=0
while read -r -a rooms; do
  for room in "${rooms[@]}"; do level[$room]=$depth; done
  depth=$((depth + 1))
done <<<"$order"

# The room of an included header. For a public header, the area that has it. Nothing for a generated header (the
# protos', the version's).
room_of() {
  local area
  case $1 in
    refit/*)
      for area in common server client; do
        if [[ -e $area/include/$1 ]]; then echo "$area/include"; return; fi
      done ;;
    *) echo "${1%/*}" ;;
  esac
}
side() { case $1 in client/python* | server/relay | server/program) echo both ;; client*) echo client ;; server*) echo server ;; *) echo common ;; esac; }

failed=no
complain() { echo "$1"; failed=yes; }
while IFS=: read -r file include; do
  from=${file%/*} name=${include#*\"} name=${name%\"*}
  case $from in */include/refit*) from=${from%%/refit*} ;; esac
  to=$(room_of "$name")
  [[ -z $to || $from == "$to" ]] && continue
  if [[ -z ${level[$from]:-} ]]; then complain "$file: the room $from is not in the order of deploy/check_rooms.sh"; continue; fi
  if [[ -z ${level[$to]:-} ]]; then complain "$file: $include: the room $to is not in the order"; continue; fi
  ((level[$from] > level[$to])) || complain "$file: $include: $from may not include $to"
  if [[ $from == */include && $to != */include ]]; then complain "$file: $include: a public header includes an internal one"; fi
  case $(side "$from")-$(side "$to") in
    server-client | client-server) complain "$file: $include: server and client do not know each other" ;;
  esac
done < <(grep -rE '^#include "(common|server|client|refit)/' common server client --include='*.h' --include='*.cc')
[[ $failed == no ]]
