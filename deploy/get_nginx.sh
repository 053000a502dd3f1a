#!/usr/bin/env bash
# Takes nginx out of Debian's package into build/tools and prints its path: an installed one would serve port 80. Exit
# code 77: not possible here, with the reason on stderr.
set -euo pipefail
tools=$(cd "$(dirname "$0")/.." && pwd)/build/tools

if [[ ! -x $tools/nginx ]]; then
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "nginx: skipped, no apt-get and dpkg-deb here" >&2
    exit 77
  fi
  mkdir -p "$tools"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  if ! { cd "$work" && apt-get -q download nginx && dpkg-deb -x nginx_*.deb . && usr/sbin/nginx -v; } >"$work/log" 2>&1; then
    tail -n 3 "$work/log" >&2
    echo "nginx: skipped, its package cannot be had or does not run; the last lines are above" >&2
    exit 77
  fi
  install -m 755 "$work/usr/sbin/nginx" "$tools/nginx"
fi
echo "$tools/nginx"
