"""Plugs for training and inference frameworks; each imports its framework only when it is used."""

from __future__ import annotations

import importlib
from typing import Any

_PLUGS = ("nemo_rl", "sglang", "torch", "verl", "vllm")


def __getattr__(name: str) -> Any:
    """A plug, imported when it is first asked for."""
    if name in _PLUGS:
        return importlib.import_module(f"refit.integrations.{name}")
    raise AttributeError(f"module 'refit.integrations' has no attribute {name!r}; there are {', '.join(_PLUGS)}")
