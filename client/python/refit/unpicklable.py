"""A base class for objects that belong to one process and cannot be pickled or copied."""

from __future__ import annotations

from typing import Any, NoReturn

CONNECT_THERE = (
    "it is a connection of this process; pass on what it was made with, such as its address, and make one there"
)


class Unpicklable:
    """Refuses pickle, cloudpickle and copy with a TypeError, as Python's own such objects do. The message says why and
    what to do instead: `_unpicklable_since`."""

    __slots__ = ()
    _unpicklable_since = CONNECT_THERE

    def __reduce_ex__(self, _: Any) -> NoReturn:
        kind = type(self)
        place = "refit.aio" if kind.__module__ == "refit.aio" else "refit"
        raise TypeError(f"{place}.{kind.__name__} cannot be pickled or copied: {self._unpicklable_since}")
