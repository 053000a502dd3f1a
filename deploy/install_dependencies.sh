#!/usr/bin/env bash
# Installs the Debian packages that this project needs, those that are missing only.
#
#   deploy/install_dependencies.sh [no-torch] [lint] [coverage] [bench] [fuzz] [packages]
#
# no-torch leaves LibTorch out, for builds with -DREFIT_WITH_TORCH=OFF.
#
# Works on a bare Debian 12, as root or through sudo. On a system without apt-get it says so and leaves the rest to you.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config git ca-certificates python3 python3-venv
  libgrpc++-dev libssl-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev libtorch-dev
  libgtest-dev libgmock-dev libbenchmark-dev libre2-dev libxxhash-dev libhwy-dev libc-ares-dev libcli11-dev
  libtomlplusplus-dev nlohmann-json3-dev prometheus-cpp-dev python3-dev pybind11-dev python3-pytest python3-numpy
  python3-torch iproute2
)
for group in "$@"; do
  case "$group" in
    no-torch) packages=("${packages[@]/libtorch-dev}"); packages=("${packages[@]/python3-torch}") ;;
    lint) packages+=(clang-format clang-tidy) ;;
    coverage) packages+=(gcovr) ;;
    fuzz) packages+=(clang-14 llvm-14 libclang-rt-14-dev) ;;
    bench) packages+=(python3-matplotlib python3-torch python3-grpcio python3-grpc-tools python3-protobuf python3-venv
                      nginx-light curl libzstd-dev) ;;
    packages) packages+=(dpkg-dev file patchelf lintian debootstrap man-db groff zsh fish) ;;
    *) echo "$0: unknown group '$group': expected no-torch, lint, coverage, bench, fuzz or packages" >&2; exit 2 ;;
  esac
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "No apt-get here: please see to it that the equivalents of these Debian packages are installed:" >&2
  echo "  ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  [[ -n $package ]] || continue
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "Dependencies: all ${#packages[@]} packages are installed."
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "$0: these packages are missing, and neither root nor sudo is at hand to install them: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

echo "Dependencies: installing ${#missing[@]} of ${#packages[@]} packages: ${missing[*]}"
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  echo "$0: apt-get failed, its last lines are above" >&2
  exit 1
fi
echo "Dependencies: installed."
