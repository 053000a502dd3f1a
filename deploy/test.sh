#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
Installs what is missing, configures, builds and runs every test.

  deploy/test.sh [options]

  --preset NAME   release (default), dev, asan-ubsan, tsan or coverage; see CMakePresets.json
  --filter RX     only tests whose CTest name matches; -L style labels with --label
  --label RX      only tests with a matching label: unit, golden, integration, fault, fuzz, load, bench, python,
                  engine
  --jobs N        parallel compilations; default: one a core
  --no-install    do not look for missing packages
  -h, --help      this text

Exit code 0: everything passed. The last lines are CTest's own. Build folder: build/NAME.
TEXT
}

preset=release jobs=$(nproc) install=yes selection=()
while (($#)); do
  case "$1" in
    --preset) preset=${2:?--preset needs a name}; shift 2 ;;
    --filter) selection+=(-R "${2:?--filter needs a pattern}"); shift 2 ;;
    --label) selection+=(-L "${2:?--label needs a pattern}"); shift 2 ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
    --no-install) install=no; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "$0: unknown option '$1'; see --help" >&2; exit 2 ;;
  esac
done

[[ $install == no ]] || deploy/install_dependencies.sh
# Without it, the grpcurl test is skipped. The reason is printed here and by the test.
deploy/get_grpcurl.sh || (($? == 77))
# The same for Python tests with a current torch. Those with the system's torch always run.
[[ $install == no || $preset != release ]] || deploy/get_torch.sh || (($? == 77))
# The same for those with a real vLLM and NeMo Automodel.
[[ $install == no || $preset != release ]] || deploy/get_engine.sh || (($? == 77))

# The same for the tests of the Helm chart and of proxies.
[[ $install == no || $preset != release ]] || deploy/get_helm.sh || (($? == 77))
[[ $install == no || $preset != release ]] || deploy/get_nginx.sh || (($? == 77))
[[ $install == no || $preset != release ]] || deploy/get_cluster_tools.sh || (($? == 77))

cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$jobs"
ctest --preset "$preset" "${selection[@]}"
