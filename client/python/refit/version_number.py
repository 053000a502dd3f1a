"""Checks whole numbers of any library: Python's, NumPy's, torch's (``operator.index``)."""

from __future__ import annotations

import operator
from typing import Any, Optional

from refit.errors import InvalidArgument

_LARGEST = 2**64 - 1


def version_number(given: Any, least: int = 0) -> int:
    """A version's number, from 1. "latest" is not a number: workers that ask at different times would get different
    versions.

    Raises:
        InvalidArgument: with the value, if it is a string, None, True, 9.0, or a number that is too small or too large.
    """
    return _whole("version", given, least)


def epoch_number(given: Optional[Any]) -> Optional[int]:
    """A trainer_epoch, or None if none is given. InvalidArgument as version_number()."""
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
