#!/usr/bin/env bash
# Runs all tests with instrumentation, and prints the line coverage of each file in common/ and server/. Fails below 85
# %, or below the given number: deploy/coverage.sh [PERCENT].
set -euo pipefail
cd "$(dirname "$0")/.."
least=${1:-85}
deploy/install_dependencies.sh coverage
if [[ -d build/coverage ]]; then find build/coverage -name '*.gcda' -delete; fi
deploy/test.sh --preset coverage --no-install
gcovr --root . --filter common/ --filter server/ --print-summary -j "$(nproc)" --fail-under-line "$least" build/coverage
