#!/usr/bin/env bash
# In new mount and process namespaces: a root with Debian's programs and ours, the volumes, and nothing else.
#
#   container.sh ROOT BIN HOSTS ro|rw [FROM:TO:ro|rw...] -- COMMAND...
set -euo pipefail
root=$1 bin=$2 hosts=$3 writable=$4
shift 4

mount --make-rprivate /
mount -t tmpfs -o size=16m,mode=0755 root "$root"
mkdir -p "$root"/{usr,etc,proc,dev,run,var/lib} "$root/etc/ssl"
mkdir -m 1777 "$root/tmp"
mount --rbind /usr "$root/usr"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
mount --bind "$bin" "$root/usr/local/bin"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
touch "$root/etc/hosts"
mount --bind "$hosts" "$root/etc/hosts"
echo 'hosts: files' >"$root/etc/nsswitch.conf"

while [[ $1 != -- ]]; do
  IFS=: read -r from to mode <<<"$1"
  mkdir -p "$root$to"
  mount --bind "$from" "$root$to"
  [[ $mode == rw ]] || mount -o remount,bind,ro "$root$to"
  shift
done
shift
[[ $writable == rw ]] || mount -o remount,ro "$root"
exec chroot "$root" "$@"
