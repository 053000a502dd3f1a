"""What SGLang is told of a version, and passes on to its workers."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any, Dict, List, Sequence, Tuple

from refit.errors import InvalidArgument
from refit.integrations.sglang.update import Update
from refit.version_number import version_number

Pair = Tuple[str, Any]

LOADER = "refit.integrations.sglang.load"
# The only tensor that the loader takes: bytes, a JSON object.
DESCRIPTOR = "refit.descriptor"


def descriptor(address: str, version: int, **options: Any) -> List[Pair]:
    """Named tensors that stand for a version, for ``Engine.update_weights_from_tensor(..., load_format=LOADER)``.
    SGLang serialises them for the Engine's own workers; from elsewhere take update_request().

    Args:
        address: of the service, as the workers reach it.
        version: a number: workers that asked for the latest could get different ones.
        options: of Subscriber and its pull(), such as model, token_file, trainer_epoch, filter, as JSON knows them, and
            of update.Update: allow_partial, keep_base, agree_within. Where the trainer has an epoch, give it: the workers
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


def read(named_tensors: Sequence[Pair]) -> Update:
    """What a descriptor stands for.

    Raises:
        InvalidArgument: it is none.
    """
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
