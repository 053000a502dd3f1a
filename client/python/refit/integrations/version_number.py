"""Numbers of versions, as users and frameworks give them."""

from __future__ import annotations

import operator
from typing import Any

from refit.errors import InvalidArgument

_LARGEST = 2**64 - 1


def version_number(given: Any) -> int:
    """A version's number. "latest" is none: workers that ask for it at different times get different versions.

    Raises:
        InvalidArgument: saying what was given: a text, None, True, 9.0, or a number that is too small or too large.
    """
    number = -1
    if not isinstance(given, bool):
        try:
            number = operator.index(given)
        except TypeError:
            pass
    if not 0 <= number <= _LARGEST:
        raise InvalidArgument(
            f"version {given!r}: expected a whole number from 0 to {_LARGEST}, so that all load the same"
        )
    return number
