"""Whole numbers, as users and frameworks give them: Python's, NumPy's, torch's (``operator.index``)."""

from __future__ import annotations

import operator
from typing import Any, Optional

from refit.errors import InvalidArgument

_LARGEST = 2**64 - 1


def version_number(given: Any, least: int = 0) -> int:
    """A version's number; the first one is 1. "latest" is none: workers that ask at different times get different versions.

    Raises:
        InvalidArgument: saying what was given: a text, None, True, 9.0, or a number that is too small or too large.
    """
    return _whole("version", given, least)


def epoch_number(given: Optional[Any]) -> Optional[int]:
    """A trainer_epoch, or None where that is left open. InvalidArgument as version_number()'s."""
    return None if given is None else _whole("trainer_epoch", given)


def _whole(what: str, given: Any, least: int = 0) -> int:
    number = -1
    if not isinstance(given, bool):
        try:
            number = operator.index(given)
        except TypeError:
            pass
    if not least <= number <= _LARGEST:
        raise InvalidArgument(f"{what} {given!r}: expected a whole number from {least} to {_LARGEST}")
    return number
