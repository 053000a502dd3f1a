"""A model that holds parts of two versions."""

from __future__ import annotations

import logging
from typing import Any, Optional

from refit.errors import FailedPrecondition

_log = logging.getLogger("vllm.refit")


class Torn:
    """A model that must not run: each forward pass fails, and says why."""

    def __init__(self, model: Any):
        self._model = model
        self._hook: Any = None
        self.why: Optional[str] = None

    def tear(self, why: str) -> None:
        self.mend()
        self.why = why
        self._hook = self._model.register_forward_pre_hook(self._refuse)
        _log.error("refit: %s", why)

    def mend(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook, self.why = None, None

    def _refuse(self, *_: Any) -> None:
        raise FailedPrecondition(self.why or "")
