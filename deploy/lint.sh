#!/usr/bin/env bash
# Checks every C++ file: layout with clang-format, clocks with deploy/check_clocks.sh, includes between rooms with
# deploy/check_rooms.sh, code with clang-tidy (.clang-tidy says what). Exit code 0: nothing found.
#
#   deploy/lint.sh [options] [FILE...]     FILE: only these; default: all
#
#   --format-only   no clang-tidy, which takes some 10 s of a core for each file
#   --newest N      clang-tidy only for the N sources that were committed last; all else for every file
#   --build DIR     the build whose compile commands are used; default: build/dev, which is configured for it
set -euo pipefail
cd "$(dirname "$0")/.."

format_only=no newest='' build=''
while [[ ${1:-} == -* ]]; do
  case "$1" in
    --format-only) format_only=yes; shift ;;
    --newest) newest=${2:?--newest needs a number}; shift 2 ;;
    --build) build=${2:?--build needs a folder}; shift 2 ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
  esac
done
deploy/install_dependencies.sh lint
if (($#)); then files=("$@"); else mapfile -t files < <(git ls-files '*.h' '*.cc'); fi

echo "clang-format: ${#files[@]} files"
printf '%s\0' "${files[@]}" | xargs -0 clang-format --dry-run -Werror
deploy/check_clocks.sh
deploy/check_rooms.sh
[[ $format_only == no ]] || exit 0

if [[ -z $build ]]; then
  build=build/dev
  cmake --preset dev >/dev/null
  cmake --build --preset dev --target refit_proto refit_health_proto refit_bench_proto >/dev/null
fi
if [[ -n $newest ]]; then
  mapfile -t files < <(git log --format= --name-only --diff-filter=d -- '*.cc' | awk '!seen[$0]++')
fi
# Files that are not compiled here (the consumer, for example) have no entry in the compilation database.
sources=()
for file in "${files[@]}"; do
  if [[ -z $newest ]] || ((${#sources[@]} < newest)); then
    if [[ $file == *.cc && -e $file ]] && grep -qF "\"$PWD/$file\"" "$build/compile_commands.json"; then sources+=("$file"); fi
  fi
done
echo "clang-tidy: ${#sources[@]} files"
printf '%s\0' "${sources[@]}" | xargs -0 -r -n 1 -P "$(nproc)" clang-tidy --quiet -p "$build"
echo "Nothing found."
