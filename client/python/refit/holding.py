"""Keeps the tensors of an iterator until all are there."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from refit import intake
from refit.errors import InvalidArgument
from refit.intake import is_torch

Pair = Tuple[str, Any]


class _Held(NamedTuple):
    name: str
    tensor: Any
    stamp: Any  # of a torch tensor
    device: str
    begin: int  # addresses
    end: int
    digest: Optional[int]  # of values in host memory


class Holding:
    """Holds references to the tensors of an iterator. A version's manifest must be known before the first byte is sent,
    and memory may not suffice for a copy of the bytes. If the iterator reuses its memory, it overwrites tensors that it
    gave before; this is detected. Names that share memory, such as tied weights, are allowed."""

    def __init__(self, pairs: Iterable[Pair]):
        """Takes all tensors of the iterator.

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
    """Tensors that share memory with another one, by name, each with the name of the other."""
    found: Dict[str, Tuple[_Held, str]] = {}
    reach: Optional[_Held] = None  # the tensor before it that ends last
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
