"""SGLang: a custom weight loader, which pulls a version in every tensor-parallel worker.

Start the server with ``--custom-weight-loader refit.integrations.sglang.load``; then post update_request() to
``/update_weights_from_tensor``, or give descriptor() to ``Engine.update_weights_from_tensor``. See docs/sglang.md.
"""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any, Dict, List, Sequence, Tuple

from refit.errors import InvalidArgument
from refit.integrations import sglang_worker
from refit.version_number import version_number
from refit.integrations.sglang_worker import LOADER, Update

Pair = Tuple[str, Any]

# The only tensor that the loader takes: bytes, a JSON object.
DESCRIPTOR = "refit.descriptor"


def register() -> None:
    """Has SGLang's workers answer with what went wrong, instead of ending. SGLang calls this itself, as a plugin
    (``sglang.srt.plugins``), where the package is installed."""
    sglang_worker.register()


def descriptor(address: str, version: int, **options: Any) -> List[Pair]:
    """Named tensors that stand for a version, for ``Engine.update_weights_from_tensor(..., load_format=LOADER)``.
    SGLang serialises them for the Engine's own workers; from elsewhere take update_request().

    Args:
        address: of the service, as the workers reach it.
        version: a number: workers that asked for the latest could get different ones.
        options: of Subscriber and its pull(), such as model, token_file, trainer_epoch, filter, as JSON knows them, and
            of sglang_worker.Update: allow_partial, agree_within. Where the trainer has an epoch, give it: the workers
            then take nothing that a former run has left.
    Raises:
        InvalidArgument: for another version, or an option that is not JSON.
    """
    import torch

    content = {"address": address, "version": version_number(version), "options": options}
    try:
        text = json.dumps(content)
    except TypeError as error:
        raise InvalidArgument(f"options of version {version}: {error}", version=version) from None
    return [(DESCRIPTOR, torch.tensor(list(text.encode()), dtype=torch.uint8))]


def update_request(address: str, version: int, *, tensor_parallel: int, **options: Any) -> Dict[str, Any]:
    """What to post to ``/update_weights_from_tensor``, as JSON: a descriptor for each worker, by value, so that it
    may come from another host (SGLang's own serialisation shares memory between processes). ``weight_version`` is the
    version; SGLang drops what it has cached with the old weights.

    Args:
        tensor_parallel: number of the server's tensor-parallel workers.
        others: as descriptor().
    """
    payload = base64.b64encode(pickle.dumps(descriptor(address, version, **options))).decode()
    return {
        "serialized_named_tensors": [payload] * tensor_parallel,
        "load_format": LOADER,
        "weight_version": str(version),
        "flush_cache": True,
    }


def load(model: Any, named_tensors: Sequence[Pair]) -> None:
    """In each tensor-parallel worker: pulls the version that a descriptor stands for, all of it and verified, and gives
    it to ``model.load_weights`` once all workers have it.

    Raises:
        InvalidArgument: `named_tensors` is no descriptor, or the version is not like those before it, naming the
            tensor.
        RefitError: as Subscriber.pull().
        FailedPrecondition, DeadlineExceeded: another worker failed, or the load did; the message says how the model was
            left, and `torn` whether it holds parts of two versions. In all other cases it is as it was.
    """
    sglang_worker.update(model, lambda: _read(named_tensors))


def _read(named_tensors: Sequence[Pair]) -> Update:
    pairs = list(named_tensors)
    names = [name for name, _ in pairs]
    if names != [DESCRIPTOR]:
        raise InvalidArgument(f"expected the one tensor of refit.integrations.sglang.descriptor(), got {names[:3]}")
    try:
        content = json.loads(bytes(pairs[0][1].tolist()))
        address, version, options = content["address"], content["version"], dict(content["options"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"tensor {DESCRIPTOR}: it is no descriptor: {error!r}", tensor=DESCRIPTOR) from None
    return Update.of(address, version_number(version), options)
