#!/usr/bin/env bash
# Makes Debian packages (refit-server, refit, librefit-dev), and a tarball of the two programs.
#
#   deploy/packages.sh [--out DIR]     DIR: where they are put; default build/packages
#
# The tarball's programs have all libraries beside them but the C library's. They run on any Linux whose glibc is not
# older than the one here.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/packages
case "${1:-}" in
  --out) out=${2:?--out needs a folder} ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  "") ;;
  *) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
esac

deploy/install_dependencies.sh no-torch packages
# The tree of deploy/python_wheel.sh, so that nothing is compiled twice.
tree=build/wheel/tree
CXX=${CXX:-c++} cmake -G Ninja -S . -B "$tree" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE="-O2 -DNDEBUG" \
  -DCMAKE_INSTALL_PREFIX=/usr -DREFIT_ZSH_FOLDER=zsh/vendor-completions -DREFIT_WITH_TORCH=OFF -DREFIT_PYTHON=OFF -DREFIT_BUILD_TESTS=OFF >/dev/null
cmake --build "$tree"
mkdir -p "$out"
rm -f "$out"/*.deb "$out"/*.tar.gz
cpack --config "$tree/CPackConfig.cmake" -B "$out" >"$out/cpack.log" || { cat "$out/cpack.log" >&2; exit 1; }
rm -rf "$out/_CPack_Packages" "$out/cpack.log"

# The tarball. Programs look for their libraries beside themselves.
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$tree/CMakeCache.txt")
name=refit-$version-linux-$(uname -m)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/$name"/{bin,lib}
for component in refit refit-server; do DESTDIR=$scratch/root cmake --install "$tree" --component "$component" --strip >/dev/null; done
cp -r "$scratch/root/usr/share" "$scratch/$name/"
for program in "$scratch"/root/usr/bin/*; do
  cp "$program" "$scratch/$name/bin/"
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | grep -vE '/lib(c|m|dl|rt|pthread|resolv)\.so' |
    xargs cp -Lt "$scratch/$name/lib/"
done
patchelf --set-rpath '$ORIGIN/../lib' "$scratch/$name"/bin/*
patchelf --set-rpath '$ORIGIN' "$scratch/$name"/lib/*
cp LICENSE "$scratch/$name/"
tar -C "$scratch" -czf "$out/$name.tar.gz" "$name"
ls -l "$out"
