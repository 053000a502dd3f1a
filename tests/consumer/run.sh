#!/usr/bin/env bash
# Installs a build into a folder of its own, and builds and runs projects against it and against the sources.
#   run.sh BUILD_DIR [extra configure arguments]
set -euo pipefail
build=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
sources=$here/../..
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
configure() { cmake -S "$here" -B "$scratch/$1" "${@:2}" >"$scratch/$1.log" 2>&1; }
fail() { echo "$1" >&2; exit 1; }
show() { cat "$1" >&2; exit 1; }

cmake --install "$build" --prefix "$scratch/first" >"$scratch/install.log" || show "$scratch/install.log"
mv "$scratch/first" "$scratch/prefix" # a prefix may be moved
installed=(-DCMAKE_PREFIX_PATH="$scratch/prefix")

echo "== find_package"
configure found "${installed[@]}" "$@" || show "$scratch/found.log"
cmake --build "$scratch/found"
"$scratch/found/consumer"
"$scratch/prefix/bin/refit" --help >/dev/null
"$scratch/prefix/bin/refit-server" --help >/dev/null

echo "== pkg-config"
PKG_CONFIG_PATH=$(find "$scratch/prefix" -name pkgconfig)
export PKG_CONFIG_PATH
read -ra flags < <(pkg-config --cflags refit refit-server)
read -ra libraries < <(pkg-config --libs refit)
extra=$(printf '%s\n' "$@" | sed -n 's/^-DCMAKE_CXX_FLAGS=//p')
# shellcheck disable=SC2086  # several flags
c++ -std=c++17 $extra "${flags[@]}" "$here/main.cc" -o "$scratch/by_pkg_config" "${libraries[@]}"
"$scratch/by_pkg_config"

echo "== each public header alone"
[[ $(ls "$scratch/prefix/include") == refit ]] || fail "more than refit/ is installed: $(ls "$scratch/prefix/include")"
count=0
while read -r header; do
  # C++17, for projects that have not come further.
  c++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only -x c++ "${flags[@]}" - <<<"#include <$header>" ||
    fail "#include <$header> does not compile alone"
  count=$((count + 1))
done < <(cd "$scratch/prefix/include" && find refit -name '*.h' ! -path 'refit/v1/*' ! -path 'refit/torch/*' | sort)
if grep -q "^REFIT_WITH_TORCH:BOOL=ON" "$build/CMakeCache.txt"; then
  configure torch "${installed[@]}" -DCONSUMER_COMPONENTS=torch "$@" || show "$scratch/torch.log"
  cmake --build "$scratch/torch" --target consumer_torch
  count=$((count + $(ls "$scratch"/prefix/include/refit/torch/*.h | wc -l)))
fi
echo "$count headers"

# Their objects only: linking would compile the library anew.
echo "== add_subdirectory"
configure subdirectory -DCONSUMER_TAKES=subdirectory -DREFIT_SOURCE="$sources" -G Ninja "$@" ||
  show "$scratch/subdirectory.log"
ninja -C "$scratch/subdirectory" CMakeFiles/consumer.dir/main.cc.o
echo "== FetchContent"
git -C "$sources" archive --output="$scratch/refit.tar" HEAD
configure fetched -DCONSUMER_TAKES=fetched -DREFIT_SOURCE="$scratch/refit.tar" -G Ninja "$@" || show "$scratch/fetched.log"
ninja -C "$scratch/fetched" CMakeFiles/consumer.dir/main.cc.o
grep -q -- '-I[^ ]*/\(common\|client\)/include' "$scratch/fetched/build.ninja"

echo "== what is missing is said"
# What is a wheel's is not in a prefix.
strays=$(find "$scratch/prefix" -name '*_refit*.so' -o -name '*.py')
[[ -z $strays ]] || fail "the prefix has parts of the Python package: $strays"
# A client needs nothing of the service's; who wants the service is told what is missing.
lacking=("${installed[@]}" -DCMAKE_DISABLE_FIND_PACKAGE_prometheus-cpp=ON)
configure lacking "${lacking[@]}" "$@" || show "$scratch/lacking.log"
if configure lacking_server "${lacking[@]}" -DCONSUMER_COMPONENTS=server "$@" ||
  ! grep -q "prometheus-cpp" "$scratch/lacking_server.log"; then
  show "$scratch/lacking_server.log"
fi
configure server "${installed[@]}" -DCONSUMER_COMPONENTS=server "$@" || show "$scratch/server.log"
