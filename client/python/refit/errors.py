"""Exceptions: one class for each gRPC status code.

Each has ``code`` (the gRPC name, such as ``"DATA_LOSS"``), ``tensor`` (the name of the tensor concerned, or None) and
``version`` (the version concerned, or None). The message names tensor, version and peer, and what was expected and
received.
"""

from __future__ import annotations

import contextlib
import re
from typing import Dict, Iterator, Optional, Type


class RefitError(Exception):
    """Any failure of a refit.

    Attributes:
        code: name of the gRPC status code.
        message: what happened.
        tensor: name of the tensor concerned, if there is one.
        version: number of the version concerned, if there is one.
        torn: whether tensors that the caller gave (``out=``) were partly written.
    """

    code = "UNKNOWN"

    def __init__(self, message: str, tensor: Optional[str] = None, version: Optional[int] = None):
        super().__init__(message)
        self.message = message
        self.tensor = tensor if tensor is not None else _tensor_in(message)
        self.version = version if version is not None else _version_in(message)
        self.torn = False

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Cancelled(RefitError):
    code = "CANCELLED"


class Unknown(RefitError):
    code = "UNKNOWN"


class InvalidArgument(RefitError, ValueError):
    """The call has wrong arguments, such as a wrong dtype, a missing tensor or a bad option."""

    code = "INVALID_ARGUMENT"


class DeadlineExceeded(RefitError, TimeoutError):
    code = "DEADLINE_EXCEEDED"


class NotFound(RefitError, LookupError):
    code = "NOT_FOUND"


class AlreadyExists(RefitError):
    code = "ALREADY_EXISTS"


class PermissionDenied(RefitError):
    code = "PERMISSION_DENIED"


class ResourceExhausted(RefitError):
    """A limit of the service was reached. The message says which, and the flag that sets it."""

    code = "RESOURCE_EXHAUSTED"


class FailedPrecondition(RefitError):
    code = "FAILED_PRECONDITION"


class Aborted(RefitError):
    """The version was aborted: another rank failed, or its trainer died."""

    code = "ABORTED"


class OutOfRange(RefitError):
    code = "OUT_OF_RANGE"


class Unimplemented(RefitError):
    code = "UNIMPLEMENTED"


class Internal(RefitError):
    code = "INTERNAL"


class Unavailable(RefitError, ConnectionError):
    """The service cannot be reached, or the connection was lost."""

    code = "UNAVAILABLE"


class DataLoss(RefitError):
    """Bytes do not match their digest."""

    code = "DATA_LOSS"


class Unauthenticated(RefitError):
    code = "UNAUTHENTICATED"


# By number, as in google.rpc.Code.
_BY_CODE: Dict[int, Type[RefitError]] = {
    1: Cancelled,
    2: Unknown,
    3: InvalidArgument,
    4: DeadlineExceeded,
    5: NotFound,
    6: AlreadyExists,
    7: PermissionDenied,
    8: ResourceExhausted,
    9: FailedPrecondition,
    10: Aborted,
    11: OutOfRange,
    12: Unimplemented,
    13: Internal,
    14: Unavailable,
    15: DataLoss,
    16: Unauthenticated,
}

# How the service and the client library write them: `tensor "w"`, `tensor w BF16 [2]`; `push of model/3`, `version 3`.
_TENSOR = re.compile(r'\btensor (?:"([^"]+)"|([^\s:,"]+))')
_VERSION = re.compile(r"\b(?:push|pull|abort|release|version) (?:of )?(?:\S+/)?(\d+)\b")


def _tensor_in(message: str) -> Optional[str]:
    found = _TENSOR.search(message)
    return (found.group(1) or found.group(2)) if found else None


def _version_in(message: str) -> Optional[int]:
    found = _VERSION.search(message)
    return int(found.group(1)) if found else None


@contextlib.contextmanager
def explained(by: str) -> Iterator[None]:
    """Adds to errors raised in the block where the wrong value may come from, unless `by` is empty."""
    try:
        yield
    except RefitError as error:
        if by:
            error.message += f" ({by})"
            error.args = (error.message,)
        raise


def from_status(code: int, message: str) -> RefitError:
    """Makes the exception for a status. The native module calls it."""
    return _BY_CODE.get(code, Unknown)(message)
