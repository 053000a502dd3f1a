#!/usr/bin/env bash
# Prints a port of 127.0.0.1 that nobody listens on.
while true; do
  port=$((20000 + RANDOM % 12000))
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; exit 0; }
done
