#!/usr/bin/env bash
# Checks every C++ file: layout with clang-format, clocks with deploy/check_clocks.sh, includes between rooms with
# deploy/check_rooms.sh, code with clang-tidy (.clang-tidy says what). Exit code 0: nothing found.
#
#   deploy/lint.sh [--format-only] [FILE...]     FILE: only these; default: all
set -euo pipefail
cd "$(dirname "$0")/.."
deploy/install_dependencies.sh lint

format_only=no
if [[ ${1:-} == --format-only ]]; then format_only=yes; shift; fi
if (($#)); then files=("$@"); else mapfile -t files < <(git ls-files '*.h' '*.cc'); fi

echo "clang-format: ${#files[@]} files"
printf '%s\0' "${files[@]}" | xargs -0 clang-format --dry-run -Werror
deploy/check_clocks.sh
deploy/check_rooms.sh
[[ $format_only == no ]] || exit 0

cmake --preset dev >/dev/null
cmake --build --preset dev --target refit_proto refit_bench_proto >/dev/null
# What is not compiled here (the consumer, say) has no entry in the compilation database.
sources=()
for file in "${files[@]}"; do
  if [[ $file == *.cc ]] && grep -qF "\"$PWD/$file\"" build/dev/compile_commands.json; then sources+=("$file"); fi
done
echo "clang-tidy: ${#sources[@]} files"
printf '%s\0' "${sources[@]}" | xargs -0 -r -n 1 -P "$(nproc)" clang-tidy --quiet -p build/dev
echo "Nothing found."
