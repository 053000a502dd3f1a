#!/usr/bin/env bash
# Runs pytest with the Python that has Kubernetes' schemas and Envoy. Exit code 77: not possible here, with the reason.
set -euo pipefail
cd "$(dirname "$0")"
python=../../build/cluster-venv/bin/python
if [[ ! -x $python ]]; then
  echo "Skipped: no build/cluster-venv. deploy/get_cluster_tools.sh makes it, or says why it cannot."
  exit 77
fi
exec "$python" -B -m pytest -q -rs -p no:cacheprovider "$@"
