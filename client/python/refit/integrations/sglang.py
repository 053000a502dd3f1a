"""SGLang: a custom weight loader, which pulls a version in every tensor-parallel worker.

Start the server with ``--custom-weight-loader refit.integrations.sglang.load``; then post update_request() to
``/update_weights_from_tensor``, or give descriptor() to ``Engine.update_weights_from_tensor``. Nothing of SGLang is
imported. See docs/sglang.md.
"""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any, Dict, List, Sequence, Tuple

from refit.errors import InvalidArgument
from refit.subscriber import Subscriber

Pair = Tuple[str, Any]

LOADER = "refit.integrations.sglang.load"
# The only tensor that the loader takes: bytes, a JSON object.
DESCRIPTOR = "refit.descriptor"
# Options that are the pull's; the others are the connection's.
_OF_PULL = ("trainer_epoch", "filter", "names", "idle_timeout", "resume_within", "copy")


def descriptor(address: str, version: int, **options: Any) -> List[Pair]:
    """Named tensors that stand for a version, for ``Engine.update_weights_from_tensor(..., load_format=LOADER)``.
    SGLang serialises them for the Engine's own workers; from elsewhere take update_request().

    Args:
        address: of the service, as the workers reach it.
        version: a number: workers that asked for the latest could get different ones.
        options: of Subscriber and its pull(), such as model, token_file, trainer_epoch, filter, as JSON knows them. Where
            the trainer has an epoch, give it: the workers then take nothing that a former run has left.
    Raises:
        InvalidArgument: for another version, or an option that is not JSON.
    """
    import torch

    _check_version(version)
    try:
        text = json.dumps({"address": address, "version": version, "options": options})
    except TypeError as error:
        raise InvalidArgument(f"options of version {version}: {error}", version=version) from None
    return [(DESCRIPTOR, torch.tensor(list(text.encode()), dtype=torch.uint8))]


def update_request(address: str, version: int, *, tensor_parallel: int, **options: Any) -> Dict[str, Any]:
    """What to post to ``/update_weights_from_tensor``, as JSON: a descriptor for each worker, by value, so that it
    may come from another host (SGLang's own serialisation shares memory between processes). ``weight_version`` is the
    version.

    Args:
        tensor_parallel: number of the server's tensor-parallel workers.
        others: as descriptor().
    """
    payload = base64.b64encode(pickle.dumps(descriptor(address, version, **options))).decode()
    return {
        "serialized_named_tensors": [payload] * tensor_parallel,
        "load_format": LOADER,
        "weight_version": str(version),
    }


def load(model: Any, named_tensors: Sequence[Pair]) -> None:
    """Pulls the version that a descriptor stands for, all of it and verified, and gives it to ``model.load_weights``.

    Raises:
        InvalidArgument: `named_tensors` is no descriptor.
        RefitError: as Subscriber.pull(); the model is as it was then.
    """
    address, version, options = _read(named_tensors)
    of_pull = {name: options.pop(name) for name in _OF_PULL if name in options}
    try:
        subscriber = Subscriber(address, **options)
    except TypeError as error:
        raise InvalidArgument(f"descriptor of version {version}: {error}", version=version) from None
    with subscriber:
        model.load_weights(iter(subscriber.pull(version, **of_pull)))


def _read(named_tensors: Sequence[Pair]) -> Tuple[str, int, Any]:
    pairs = list(named_tensors)
    names = [name for name, _ in pairs]
    if names != [DESCRIPTOR]:
        raise InvalidArgument(f"expected the one tensor of refit.integrations.sglang.descriptor(), got {names[:3]}")
    try:
        content = json.loads(bytes(pairs[0][1].tolist()))
        address, version, options = content["address"], content["version"], dict(content["options"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"tensor {DESCRIPTOR}: it is no descriptor: {error!r}", tensor=DESCRIPTOR) from None
    _check_version(version)
    return address, version, options


def _check_version(version: Any) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise InvalidArgument(f"version {version!r}: expected a number, so that all workers load the same")
