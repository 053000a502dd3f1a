"""These tests need build/cluster-venv: deploy/get_cluster_tools.sh."""

import sys

sys.dont_write_bytecode = True
