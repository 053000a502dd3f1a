"""How many connections a version takes."""

from __future__ import annotations

import operator
from typing import Any

from refit.errors import InvalidArgument


def stream_count(given: Any) -> int:
    """As the bindings want it: 0 for "auto"."""
    count = 0
    if given == "auto":
        return count
    if not isinstance(given, bool):
        try:
            count = operator.index(given)
        except TypeError:
            pass
    if not 1 <= count <= 64:
        raise InvalidArgument(f'streams {given!r}: expected a number of connections from 1 to 64, or "auto"')
    return count
