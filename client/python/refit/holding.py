"""Tensors of an iterator, held until it has given all of them."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from refit import intake
from refit.errors import InvalidArgument
from refit.intake import is_torch

Pair = Tuple[str, Any]


class _Held(NamedTuple):
    name: str
    tensor: Any
    stamp: Any  # of torch's tensors
    device: str
    begin: int  # addresses
    end: int
    digest: Optional[int]  # of host memory


class Holding:
    """What an iterator gave, by reference: a version's manifest must be known before the first byte goes, and the bytes may
    be more than fit twice. An iterator that uses its memory again would have changed what it gave before: that is noticed.
    Names that share memory, as tied weights do, are no harm."""

    def __init__(self, pairs: Iterable[Pair]):
        """Takes all of them.

        Raises:
            InvalidArgument: naming a tensor whose memory was used again.
        """
        self._held = [_hold(name, tensor) for name, tensor in pairs]
        for held in self._held:
            _check_stamp(held)
        for held, other in _shared(self._held).values():
            _check_same(held, other)

    def __iter__(self) -> Iterator[Pair]:
        for held in self._held:
            _check_stamp(held)
            yield held.name, held.tensor


def _hold(name: str, tensor: Any) -> _Held:
    here = intake.local(name, tensor)
    if is_torch(here) and intake.device_of(here).type != "cpu":
        intake.check(name, here)
        return _Held(name, tensor, intake.stamp(here), str(intake.device_of(here)), *intake.span(here), None)
    lease = intake.lend(name, here)
    if lease.is_own:
        return _Held(name, lease, None, "", 0, 0, None)
    begin, end = lease.memory.address, lease.memory.address + lease.memory.size
    return _Held(name, tensor, intake.stamp(here) if is_torch(here) else None, "cpu", begin, end, lease.digest(name))


def _check_stamp(held: _Held) -> None:
    if held.stamp is not None and intake.stamp(intake.local(held.name, held.tensor)) != held.stamp:
        raise _used_again(held.name, "it was changed, freed or moved")


def _shared(held: List[_Held]) -> Dict[str, Tuple[_Held, str]]:
    """Those that share memory with another, by name, and the name of that."""
    found: Dict[str, Tuple[_Held, str]] = {}
    reach: Optional[_Held] = None  # the one before that ends last
    for one in sorted(held, key=lambda one: (one.device, one.begin)):
        if reach is not None and reach.device == one.device and one.begin < min(one.end, reach.end):
            found[reach.name] = (reach, one.name)
            found[one.name] = (one, reach.name)
        if reach is None or reach.device != one.device or one.end > reach.end:
            reach = one
    return found


def _check_same(held: _Held, other: str) -> None:
    if held.digest is None:
        raise _used_again(
            held.name, f"it is that of tensor {other} too; if they are the same weights, push a dict of them"
        )
    if intake.lend(held.name, held.tensor).digest(held.name) != held.digest:
        raise _used_again(held.name, f"it is that of tensor {other} too, which has other values")


def _used_again(name: str, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"tensor {name}: its memory is not what it was when the iterator gave it: {what}. An iterator that uses its memory "
        "again needs declare={name: (dtype, shape), ...}, with which each tensor is read before the next one is asked for; "
        "or it gives copies",
        tensor=name,
    )
