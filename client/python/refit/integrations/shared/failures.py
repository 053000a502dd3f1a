"""Exceptions in words, for messages to other processes."""

from __future__ import annotations

from refit.errors import RefitError


def told(failure: BaseException) -> str:
    """With its code, or its type where it is none of refit's."""
    return str(failure) if isinstance(failure, RefitError) else f"{type(failure).__name__}: {failure}"
