"""Plain PyTorch: a version into a module's parameters, in place.

::

    refit.Worker("host:port", install=install_into(model)).follow()
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Set, Tuple

from refit.dtensor import is_dtensor
from refit.errors import FailedPrecondition, InvalidArgument
from refit.pulled_version import PulledVersion

Copy = Tuple[Any, Any, str]  # (target, source, name)

_TORN = "the model holds parts of two versions (torn): install a whole one before it is used"


def install_into(model: Any, *, strict: bool = True) -> Callable[[PulledVersion], None]:
    """What installs versions into a torch.nn.Module: for Worker and Subscriber.follow().

    It copies in place, in whatever thread it is called, under no_grad; the caller keeps the model idle meanwhile. All
    is checked before the first byte is written. Parameters that are tied (one object under several names) need come
    under one name only; under several, with the same values.

    Args:
        model: its parameters and persistent buffers, as they are when a version comes, are the targets.
        strict: every one of them must come, and nothing else. Without, what is missing stays, and what is unknown is
            passed over; dtypes and shapes must fit all the same.
    Raises:
        InvalidArgument: from the callback, naming the tensor: missing, unknown, of another dtype or shape, or with two
            values; or a target that cannot be written in place (on meta, a DTensor, sparse, or expanded).
        FailedPrecondition: torch failed at a copy; `torn` says that the model holds parts of two versions. Only a
            version that has all of those tensors is installed after that.
    """
    torn: Set[str] = set()

    def install(version: PulledVersion) -> None:
        copies = _plan(model, version, strict)
        names = {name for _, _, name in copies}
        if torn - names:
            raise _wrong(version, min(torn - names), f"it is missing in the version, and {_TORN}")
        torn.update(names)
        _copy_all(version, copies)
        torn.clear()

    return install


def _plan(model: Any, version: PulledVersion, strict: bool) -> List[Copy]:
    """What to copy, all of it checked."""
    targets = _targets(model)
    copies: Dict[int, Copy] = {}
    for name, source in version:
        target = targets.get(name)
        if target is None:
            if strict:
                raise _wrong(version, name, "the model has no such parameter or persistent buffer")
            continue
        _check(version, name, target, source)
        _check_tie(version, name, source, copies.get(id(target)))
        copies[id(target)] = (target, source, name)
    if strict:
        _check_complete(version, targets, copies)
    return list(copies.values())


def _targets(model: Any) -> Dict[str, Any]:
    """Parameters and persistent buffers by name, tied ones under each of theirs."""
    import torch

    return {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}


def _check(version: PulledVersion, name: str, target: Any, source: Any) -> None:
    if is_dtensor(target):
        raise _wrong(version, name, "the model's is a DTensor; pull its part and copy it into to_local()")
    if target.device.type == "meta":
        raise _wrong(version, name, "the model's is on meta and has no memory")
    if target.layout != source.layout:
        raise _wrong(version, name, f"the model's is {target.layout}, which cannot be written in place")
    if any(stride == 0 and size > 1 for stride, size in zip(target.stride(), target.shape)):
        raise _wrong(version, name, "the model's is expanded: elements of it share memory")
    if (source.dtype, source.shape) != (target.dtype, target.shape):
        raise _wrong(
            version,
            name,
            f"expected {target.dtype} {list(target.shape)} as in the model, got {source.dtype} {list(source.shape)}",
        )


def _check_tie(version: PulledVersion, name: str, source: Any, other: Any) -> None:
    import torch

    if other is not None and not torch.equal(_bytes(source), _bytes(other[1])):
        raise _wrong(version, name, f"it is tied to {other[2]} in the model, but came with other values")


def _bytes(tensor: Any) -> Any:
    import torch

    return tensor.contiguous().view(-1).view(torch.uint8)


def _check_complete(version: PulledVersion, targets: Dict[str, Any], copies: Dict[int, Any]) -> None:
    for name, target in targets.items():
        if id(target) not in copies:
            raise _wrong(version, name, "it is missing in the version")


def _copy_all(version: PulledVersion, copies: List[Copy]) -> None:
    import torch

    for target, source, name in copies:
        try:
            with torch.inference_mode() if target.is_inference() else torch.no_grad():
                target.copy_(source)
        except Exception as error:
            words = f"version {version.number}, tensor {name}: torch cannot copy it: {error}; {_TORN}"
            failed = FailedPrecondition(words, tensor=name, version=version.number)
            failed.torn = True
            raise failed from error


def _wrong(version: PulledVersion, name: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"version {version.number}, tensor {name}: {reason}", tensor=name, version=version.number)
