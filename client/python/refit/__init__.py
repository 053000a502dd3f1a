"""Weight refits for reinforcement learning: a trainer's weights, as versions, to its inference workers.

Trainer::

    with refit.Publisher("host:port").version(42, dtype="bf16") as v:
        v.push(model.state_dict())

Worker::

    for name, tensor in refit.Subscriber("host:port").pull("latest"):
        ...

See Publisher, Subscriber, Worker, serve, and refit.aio for their asyncio variants; refit.integrations has plugs for
training and inference frameworks.
"""

from __future__ import annotations

import importlib
from typing import Any, List

from refit._refit import tune_allocator as _tune_allocator
from refit.adapters import convert_single_tensor_to_hf, recognise_adapter
from refit.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    RefitError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
)
from refit.families import add_adapter_file, known_adapters
from refit.publisher import Publisher
from refit.service import Service, serve
from refit.pulled_version import PulledVersion
from refit.selection import Box, Rule
from refit.subscriber import Subscriber
from refit.tensors import Tensor
from refit.traffic import Traffic
from refit.version import Version, VersionInfo
from refit.worker import Worker

__version__ = "0.1.0"

# Imported on first use: not every program needs asyncio or the plugs.
_LAZY = ("aio", "integrations")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"refit.{name}")
    raise AttributeError(f"module 'refit' has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted([*globals(), *_LAZY])


def tune_allocator() -> None:
    """Sets up this process's allocator (glibc's) for bulk transfers: memory that gRPC receives into is kept, also when
    no transfer is under way, and everything else that the process frees. No pull needs it: during one, that memory is
    kept anyway. It saves the first milliseconds of each pull, and takes some 100 MB. Call it early."""
    _tune_allocator()


__all__ = [
    "Aborted",
    "AlreadyExists",
    "Box",
    "Cancelled",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Publisher",
    "PulledVersion",
    "RefitError",
    "ResourceExhausted",
    "Rule",
    "Service",
    "Subscriber",
    "Tensor",
    "Traffic",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Version",
    "VersionInfo",
    "Worker",
    "convert_single_tensor_to_hf",
    "serve",
    "tune_allocator",
]
