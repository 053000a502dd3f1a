"""Runs of a trainer. For the plugs: a trainer that is started anew goes on above all that the service has had."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple

from refit.errors import FailedPrecondition
from refit.publisher import Publisher

_LARGEST = 2**64 - 1


def begin_run(
    address: str, first_version: int, *, model: str, channel: Optional[Mapping[str, Any]] = None
) -> Tuple[int, int]:
    """(trainer_epoch, version) that a new run begins with: above the largest that the service at `address` knows of the
    model, and not below `first_version`. Whatever a former run may still push is refused from its first version on.

    Raises:
        Unavailable: naming the address, if there is no service.
        FailedPrecondition: there is nothing above what it knows.
    """
    with Publisher(address, model=model, **dict(channel or {})) as publisher:
        epoch, number = publisher.last_run()
    if _LARGEST in (epoch, number):
        raise FailedPrecondition(
            f"model {model!r} at {address} has had trainer_epoch {epoch} and version {number}: nothing can go on above "
            "that; take another model name"
        )
    return epoch + 1, max(first_version, number + 1)
