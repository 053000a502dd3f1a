"""From a framework's generator of weights to a version. For the plugs of trainers that yield tensors one by one."""

from __future__ import annotations

from itertools import chain, islice
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Tuple

from refit import aio
from refit.dtensor import is_dtensor
from refit.errors import InvalidArgument
from refit.staging import on_host
from refit.version import part_of

Pair = Tuple[str, Any]
Parts = List[Tuple[str, Any]]


class WeightSender:
    """Pushes versions of the same tensors. The first one is gathered in host memory, since a version is declared before
    it is pushed; those that follow are streamed, `bucket_size` bytes of the trainer's memory at a time.

    The generator runs in the caller's thread, whose CUDA device and stream its collectives may need; only the network
    is left to another.
    """

    def __init__(
        self,
        *,
        bucket_size: int,
        model: str = "default",
        adapter: str = "identity",
        dtype: Any = None,
        sharded: Optional[bool] = None,
        channel: Optional[Mapping[str, Any]] = None,
    ):
        """
        Args:
            bucket_size: bytes on the way at a time; a larger tensor goes alone.
            sharded: True: every rank pushes what it holds, as of DTensors; False: rank 0 pushes all, and the others
                only drain the generator; None: as the first tensor is.
            model, adapter, dtype, channel: as Publisher's and its version()'s; `channel` has the connection's options.
        """
        self._bucket_size = bucket_size
        self._sharded = sharded
        self._version_options = dict(dtype=dtype)
        self._publisher_options = dict(channel or {}, model=model, adapter=adapter)
        self._declared: Optional[Parts] = None

    async def send(self, address: str, number: int, weights: Iterable[Pair], *, rank: int = 0, world: int = 1) -> None:
        """Pushes and commits version `number`. On every rank the generator is drained, also if the push fails, so
        that no rank is left alone in its collectives.

        Args:
            weights: (name, tensor), the same names and shapes each time, on every rank in the same order.
        Raises:
            InvalidArgument, NotFound, FailedPrecondition: naming the tensor that has changed, is new, or is missing.
            RefitError: as Version.push() and Version.commit(). No worker sees any of the version then.
        """
        rest = iter(weights)
        head = list(islice(rest, 1))
        is_sharded = self._sharded if self._sharded is not None else any(is_dtensor(tensor) for _, tensor in head)
        pairs = chain(head, rest)
        try:
            if is_sharded:
                await self._push(address, number, pairs, rank, world)
            elif rank == 0:
                await self._push(address, number, _whole(pairs), 0, 1)
        finally:
            for _ in rest:
                pass

    async def _push(self, address: str, number: int, pairs: Iterable[Pair], rank: int, world: int) -> None:
        declared, self._declared = self._declared, None
        if declared is None:
            declared, pairs = _gathered(pairs)
        async with aio.Publisher(address, **self._publisher_options) as publisher:
            options = dict(self._version_options, declare=declared, rank=rank, world=world)
            async with publisher.version(number, **options) as version:
                for bucket in buckets(pairs, self._bucket_size, _nbytes):
                    await version.push(list(on_host((name, _local(tensor)) for name, tensor in bucket)))
        self._declared = declared


def buckets(pairs: Iterable[Pair], size: int, nbytes: Callable[[Any], int]) -> Iterator[List[Pair]]:
    """Runs of pairs with at most `size` bytes each, or one pair that is larger."""
    bucket: List[Pair] = []
    held = 0
    for name, tensor in pairs:
        if bucket and held + nbytes(tensor) > size:
            yield bucket
            bucket, held = [], 0
        bucket.append((name, tensor))
        held += nbytes(tensor)
    if bucket:
        yield bucket


def _whole(pairs: Iterable[Pair]) -> Iterator[Pair]:
    for name, tensor in pairs:
        if is_dtensor(tensor):
            raise InvalidArgument(
                f"tensor {name}: it is a DTensor among whole tensors, and only rank 0 pushes; set sharded=True to "
                "have every rank push its part",
                tensor=name,
            )
        yield name, tensor


def _gathered(pairs: Iterable[Pair]) -> Tuple[Parts, List[Pair]]:
    """(what to declare, this rank's tensors in pageable host memory)."""
    parts: Parts = []

    def locals_of() -> Iterator[Pair]:
        for name, tensor in pairs:
            parts.append((name, part_of(name, tensor)))
            yield name, _local(tensor)

    here = list(on_host(locals_of(), begin=_pageable_copy))
    return parts, here


def _pageable_copy(tensor: Any) -> Callable[[], Any]:
    copied = tensor.cpu()
    return lambda: copied


def _local(tensor: Any) -> Any:
    return tensor.to_local() if is_dtensor(tensor) else tensor


def _nbytes(tensor: Any) -> int:
    local = _local(tensor)
    return int(local.numel()) * int(local.element_size())
