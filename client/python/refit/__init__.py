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

from refit.adapters import convert_single_tensor_to_hf
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
from refit.publisher import Publisher
from refit.service import Service, serve
from refit.subscriber import Box, PulledVersion, Rule, Subscriber
from refit.tensors import Tensor
from refit.version import Version, VersionInfo
from refit.worker import Worker

__version__ = "0.1.0"

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
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Version",
    "VersionInfo",
    "Worker",
    "convert_single_tensor_to_hf",
    "serve",
]
