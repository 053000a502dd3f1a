"""What a worker still has of an earlier version, so that only the changes since need come."""

from __future__ import annotations

from typing import NamedTuple, Optional

from refit import _refit, intake
from refit.errors import InvalidArgument, RefitError
from refit.pulled_version import PulledVersion
from refit.tensors import Tensor


class Base(NamedTuple):
    """For one pull.

    Attributes:
        native: None: there is none.
        refused: why `earlier` is none, although it was given.
    """

    native: Optional["_refit.Base"]
    refused: str = ""


def base_of(earlier: Optional[PulledVersion]) -> Base:
    """Keeps the tensors of `earlier`, which are only read. InvalidArgument if it is no result of a pull."""
    if earlier is None:
        return Base(None)
    if not isinstance(earlier, PulledVersion):
        raise InvalidArgument(f"base: expected what an earlier pull() returned, got a {type(earlier).__name__}")
    base = _refit.Base(
        version=earlier.number, trainer_epoch=earlier.info.trainer_epoch, digest=earlier.selection_digest
    )
    try:
        for tensor in earlier.tensors:
            _add(base, earlier, tensor)
    except RefitError as error:
        return Base(None, f"version {earlier.number} is not whole here: {error.message}")
    return Base(base)


def _add(base: "_refit.Base", earlier: PulledVersion, tensor: Tensor) -> None:
    """Memory that the caller gave with `out` may have been freed or moved since: it is found and checked anew."""
    target = earlier.targets.get(tensor.name)
    if target is None:
        base.add(tensor.memory)
        return
    lease = intake.lend(tensor.name, target)
    if lease.is_own:
        raise InvalidArgument(f"tensor {tensor.name}: its memory is not contiguous any more", tensor=tensor.name)
    lease.check(tensor.name)
    base.add_lent(tensor.memory.part, lease.memory)
