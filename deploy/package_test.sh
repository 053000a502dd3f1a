#!/usr/bin/env bash
# Installs what deploy/python_wheel.sh and deploy/packages.sh have made into bare Debian systems, and uses it there.
#
#   deploy/package_test.sh [options] [wheel | debs]      default: both
#
#   --roots DIR     where the systems are kept; default build/roots. Made by debootstrap at first (as root, 300 MB each),
#                   with torch, grpcio, pyarrow and ray from PyPI (6 GB each)
#   --quick         the wheel beside these libraries in four orders of import, not in every one
#
# Exit code 77: no debootstrap, or not root.
set -euo pipefail
cd "$(dirname "$0")/.."

roots=build/roots orders=every what=()
while (($#)); do
  case "$1" in
    --roots) roots=${2:?--roots needs a folder}; shift 2 ;;
    --quick) orders=few; shift ;;
    wheel | debs) what+=("$1"); shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
  esac
done
((${#what[@]})) || what=(wheel debs)
if ((EUID != 0)) || ! command -v debootstrap >/dev/null; then
  echo "Skipped: bare systems are made by debootstrap, as root" >&2
  exit 77
fi

# bare SUITE: a minimal Debian in $roots/SUITE.
bare() {
  [[ -x $roots/$1/usr/bin/python3 ]] ||
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$1" "$roots/$1" >/dev/null
}

# inside ROOT COMMAND...: with this project at /project, and processes, mounts and a loopback of its own.
# online ROOT COMMAND...: with this machine's network, to install packages.
inside() { enter "ip link set lo up" --net "$@"; }
online() { enter true --ipc "$@"; }
enter() {
  local first=$1 network=$2 root=$3
  shift 3
  mkdir -p "$root/project"
  unshare "$network" --mount --pid --fork --kill-child bash -c '
    set -e
    first=$1 root=$2; shift 2
    $first
    mount --bind "$PWD" "$root/project" && mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    exec chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
  ' bash "$first" "$root" "$@"
}

permutations() {  # of its arguments, one a line
  if (($# < 2)); then echo "$*"; return; fi
  local i rest
  for ((i = 1; i <= $#; ++i)); do
    rest=("${@:1:i-1}" "${@:i+1}")
    permutations "${rest[@]}" | sed "s/^/${!i} /"
  done
}

test_wheel() {
  local suite=$1 root=$roots/$1 version wheel order
  bare "$suite"
  version=$(inside "$root" python3 -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
  wheel=$(ls build/wheel/refit_rl-*-"$version"-*manylinux*.whl)
  echo "== $suite ($version, $(inside "$root" ldd --version | sed -n 1p)): $wheel"
  [[ -d $root/opt/others/torch ]] || online "$root" sh -c '
    python3 -m venv /opt/pip && /opt/pip/bin/pip install -q --target /opt/others torch numpy grpcio protobuf pyarrow ray'
  inside "$root" sh -c "rm -rf /opt/venv && python3 -m venv /opt/venv && /opt/venv/bin/pip install -q --no-index /project/$wheel"
  inside "$root" sh -c '/opt/venv/bin/refit --version && /opt/venv/bin/refit-server --version && /opt/venv/bin/python -m refit --version'
  inside "$root" sh -c "/opt/venv/bin/pip install -q --no-index --target /opt/elsewhere --upgrade /project/$wheel &&
    PYTHONPATH=/opt/elsewhere /opt/elsewhere/bin/refit --version && rm -r /opt/elsewhere"
  inside "$root" env PYTHONPATH=/opt/others /opt/venv/bin/python /project/tests/packages/readme.py /project/README.md
  local pool=google.protobuf.descriptor_pool
  {
    echo "refit torch grpc pyarrow.flight $pool"
    echo "$pool pyarrow.flight grpc torch refit"
    echo ray refit grpc pyarrow.flight
    echo refit ray grpc pyarrow.flight
    [[ $orders == few ]] || permutations refit torch grpc pyarrow.flight
  } >"$root/orders"
  while read -r order; do
    # shellcheck disable=SC2086  # several words
    inside "$root" env PYTHONPATH=/opt/others /opt/venv/bin/python /project/tests/packages/beside.py $order </dev/null ||
      { echo "failed: $order" >&2; exit 1; }
  done <"$root/orders"
}

test_debs() {
  local root=$roots/debs
  lintian --allow-root --fail-on error,warning build/packages/*.deb
  bare bookworm
  # The tarball, where nothing of ours is installed.
  inside "$roots/bookworm" bash -e -c '
    tar -C /tmp -xzf /project/build/packages/refit-*.tar.gz && cd /tmp/refit-*/ && bin/refit-server --version
    bin/refit-server --listen 127.0.0.1:50051 2>/tmp/log & server=$!
    bin/refit push --quiet --connect-timeout 30 --synthetic gemma4_tiny --version 1 && bin/refit pull --quiet --out /tmp/hf.safetensors
    kill $server; wait $server; rm -rf /tmp/refit-* /tmp/hf.safetensors'
  rm -rf "$root" && cp -a --reflink=auto "$roots/bookworm" "$root" && rm -rf "$root/opt/others" "$root/opt/venv"
  online "$root" sh -c 'apt-get -q update && apt-get -q install -y --no-install-recommends /project/build/packages/*.deb' >"$roots/install.log"
  inside "$root" bash -e /project/tests/packages/installed.sh
  inside "$root" sh -c 'apt-get -q purge -y refit refit-server librefit-dev' >"$roots/purge.log"
  inside "$root" bash -e /project/tests/packages/purged.sh
  rm -rf "$root"
}

for part in "${what[@]}"; do
  if [[ $part == debs ]]; then test_debs; else test_wheel trixie; test_wheel bookworm; fi
done
