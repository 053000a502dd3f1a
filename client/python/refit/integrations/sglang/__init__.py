"""SGLang: a custom weight loader, which pulls a version in every tensor-parallel worker.

Start the server with ``--custom-weight-loader refit.integrations.sglang.load``; then post update_request() to
``/update_weights_from_tensor``, or give descriptor() to ``Engine.update_weights_from_tensor``. See docs/sglang.md.
"""

from __future__ import annotations

from refit.integrations.sglang.engine import register
from refit.integrations.sglang.request import DESCRIPTOR, LOADER, descriptor, update_request
from refit.integrations.sglang.worker import load

__all__ = ["DESCRIPTOR", "LOADER", "descriptor", "load", "register", "update_request"]
