#!/usr/bin/env bash
# Random faults against a service, a trainer and two workers, round by round: deploy/chaos.sh [--rounds N] [--seed N]
# See tests/fault/chaos_test.cc for what breaks and what must hold.
set -euo pipefail
cd "$(dirname "$0")/.."

deploy/install_dependencies.sh
cmake --preset release > /dev/null
cmake --build --preset release --target chaos_test
if [[ $# -eq 0 ]]; then set -- --rounds 1000; fi
exec build/release/tests/chaos_test "$@"
