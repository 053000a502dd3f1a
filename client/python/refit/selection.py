"""Selects what to pull: a version, and parts of its tensors."""

from __future__ import annotations

from typing import Mapping, Optional, Sequence, Union

from refit import _refit
from refit.errors import InvalidArgument
from refit.stream_count import stream_count
from refit.version_number import epoch_number, version_number

# Cuts tensors into parts: refit.Rule(dimension=0, part=rank, parts=world, scope="experts").
Rule = _refit.Rule
# Offsets and sizes of a part of a tensor.
Box = _refit.Box


def selection(
    model: str,
    *,
    version: Union[int, str, None] = None,
    filter: str = "",
    names: Sequence[str] = (),
    rules: Sequence["_refit.Rule"] = (),
    boxes: Optional[Mapping[str, "_refit.Box"]] = None,
    worker: str = "",
    installed: Optional[int] = None,
    idle_timeout: float = 60.0,
    resume_within: float = 30.0,
    trainer_epoch: Optional[int] = None,
    life: int = 0,
    streams: Union[int, str] = 1,
) -> "_refit.PullOptions":
    """What to pull; arguments as Subscriber.pull()."""
    if isinstance(version, str):
        if version != "latest":
            raise InvalidArgument(f"version '{version}': expected a number or 'latest'")
        version = None
    elif version is not None:
        version = version_number(version)
    return _refit.PullOptions(
        model=model,
        version=version,
        filter=filter,
        names=list(names),
        rules=list(rules),
        boxes=list((boxes or {}).items()),
        worker=worker,
        installed=None if installed is None else version_number(installed),
        idle_timeout=idle_timeout,
        resume_within=resume_within,
        trainer_epoch=epoch_number(trainer_epoch),
        life=life,
        streams=stream_count(streams),
    )
