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
for file in man/man1/%.1.gz bash-completion/completions/% zsh/site-functions/_% fish/vendor_completions.d/%.fish; do
  [[ -s $scratch/prefix/share/${file//%/refit} && -s $scratch/prefix/share/${file//%/refit-server} ]] || fail "no $file"
done

echo "== pkg-config"
PKG_CONFIG_PATH=$(find "$scratch/prefix" -name pkgconfig)
export PKG_CONFIG_PATH
read -ra flags < <(pkg-config --cflags refit refit-server)
read -ra libraries < <(pkg-config --libs refit)
extra=$(printf '%s\n' "$@" | sed -n 's/^-DCMAKE_CXX_FLAGS=//p')
# shellcheck disable=SC2086  # several flags
c++ -std=c++17 $extra "${flags[@]}" "$here/main.cc" -o "$scratch/by_pkg_config" "${libraries[@]}"
"$scratch/by_pkg_config"

echo "== the examples of client/CPP.md"
awk -v folder="$scratch" '
  /^```cpp$/ { file = folder "/block_" ++count ".inc"; next }
  /^```$/ { file = "" }
  file != "" && !/^#include/ && !/^\.\.\.$/ { print > file }' "$sources/client/CPP.md"
[[ $(ls "$scratch"/block_*.inc | wc -l) == $(grep -c '^#include "block_' "$here/page.cc") ]] ||
  fail "client/CPP.md has other examples than page.cc"
c++ -std=c++20 -Wall -Wno-missing-field-initializers -Wno-unused-result -fsyntax-only "${flags[@]}" -I"$scratch" \
  "$here/page.cc"

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

# As a part of another build. The consumer's object only: linking would compile the library anew.
compile_within() { # HOW SOURCE, with the extra configure arguments
  configure "$1" -DCONSUMER_TAKES="$1" -DREFIT_SOURCE="$2" -G Ninja "${@:3}" || show "$scratch/$1.log"
  ninja -C "$scratch/$1" CMakeFiles/consumer.dir/main.cc.o
  local others
  others=$(ninja -C "$scratch/$1" -t commands CMakeFiles/consumer.dir/main.cc.o | tail -n 1 |
    grep -oE -- '-I[^ ]+' | grep -v '/include$' || true)
  [[ -z $others ]] || fail "more than public headers is on the include path: $others"
  if grep -q "^CMAKE_BUILD_TYPE:.*=.\+" "$scratch/$1/CMakeCache.txt"; then fail "refit chose the project's build type"; fi
}
echo "== add_subdirectory"
compile_within subdirectory "$sources" "$@"
echo "== FetchContent"
tar -C "$sources" --exclude=./build --exclude=./.git -cf "$scratch/refit.tar" --transform "s,^\.,refit," .
compile_within fetched "$scratch/refit.tar" "$@"

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
