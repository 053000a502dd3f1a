"""From a framework's generator of weights to a version. For the plugs of trainers that yield tensors one by one."""

from __future__ import annotations

import asyncio
import time
from itertools import chain, islice
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from refit import aio, intake
from refit.errors import InvalidArgument, NotFound, RefitError, Unavailable
from refit.intake import Lease, is_dtensor
from refit.staging import Begin, on_host
from refit.version import Tensors, part_of

Pair = Tuple[str, Any]
Parts = List[Tuple[str, Any]]

# Declared by a version that is opened only to abort it.
_NOTHING = {"refit.nothing": ("U8", (1,))}
# How long a rank that has failed waits for another rank to open the version, so that it can abort it; seconds.
_FOR_OTHER_RANKS = 10.0


class WeightSender:
    """Pushes versions of the same tensors. The first one is copied to host memory as a whole, since a version is
    declared before it is pushed, unless `declare` says what will come; those that follow are streamed, `bucket_size`
    bytes of copies at a time.

    The generator runs in the caller's thread, whose CUDA device and stream its collectives may need; only the network
    is left to another. Each tensor is copied before the generator is resumed (a CUDA tensor: in the current stream), so
    that it may use its memory again, or free it.
    """

    def __init__(
        self,
        *,
        bucket_size: int,
        model: str = "default",
        adapter: str = "identity",
        adapter_options: Optional[Mapping[str, Any]] = None,
        dtype: Any = None,
        sharded: Optional[bool] = None,
        channel: Optional[Mapping[str, Any]] = None,
        declare: Optional[Tensors] = None,
        allow_partial: bool = False,
    ):
        """
        Args:
            bucket_size: bytes on the way at a time; a larger tensor goes alone.
            declare: all tensors by name, as tensors (also on meta) or (dtype, shape), for a trainer without memory for
                a copy of all of them.
            allow_partial: a version may have other tensors than the one before; each is copied to host memory as a
                whole then.
            sharded: True: every rank pushes what it holds, as of DTensors; False: rank 0 pushes all, and the others
                only drain the generator; None: as the first tensor is.
            model, adapter, adapter_options, dtype, channel: as Publisher's and its version()'s; `channel` has the connection's options.
        """
        self._bucket_size = bucket_size
        self._sharded = sharded
        self._version_options = dict(dtype=dtype)
        self._publisher_options = dict(channel or {}, model=model, adapter=adapter, adapter_options=adapter_options)
        self._given = _parts(declare)
        self._keeps = not allow_partial
        self._declared = self._given
        self._was_opened = False  # the version that is sent
        self._is_sharded = False

    async def send(
        self,
        address: str,
        number: int,
        weights: Iterable[Pair],
        *,
        rank: int = 0,
        world: int = 1,
        trainer_epoch: int = 0,
    ) -> None:
        """Pushes and commits version `number`. On every rank the generator is drained, also if the push fails, so
        that no rank is left alone in its collectives.

        Args:
            weights: (name, tensor), the same names and shapes each time (but see allow_partial), on every rank in the
                same order.
            trainer_epoch: as Publisher.version()'s.
        Raises:
            InvalidArgument, NotFound, FailedPrecondition: naming the tensor that has changed, is new, or is missing.
            RefitError: as Version.push() and Version.commit(). No worker sees any of the version then.
        """
        rest = iter(weights)
        options = dict(self._version_options, trainer_epoch=trainer_epoch, rank=rank, world=world)
        self._was_opened = False
        self._is_sharded = bool(self._sharded)
        try:
            await self._send(address, number, rest, options)
        except Exception as error:
            if self._is_sharded:  # the others need these before they come to their push
                _drain(rest)
            if not self._was_opened and self._pushes(rank) and not isinstance(error, Unavailable):
                await self._give_up(address, number, trainer_epoch, f"{type(error).__name__}: {error}"[:1000])
            raise
        finally:
            _drain(rest)

    def _pushes(self, rank: int) -> bool:
        return self._is_sharded or rank == 0

    async def _send(self, address: str, number: int, rest: Iterator[Pair], options: Dict[str, Any]) -> None:
        head = list(islice(rest, 1))
        if self._sharded is None:
            self._is_sharded = any(is_dtensor(tensor) for _, tensor in head)
        if self._is_sharded:
            await self._push(address, number, chain(head, rest), options)
        elif self._pushes(options["rank"]):
            await self._push(address, number, _whole(chain(head, rest)), dict(options, world=1))

    async def _push(self, address: str, number: int, pairs: Iterable[Pair], options: Mapping[str, Any]) -> None:
        declared, self._declared = self._declared, self._given
        if declared is None:
            declared, pairs = _gathered(pairs)
        async with aio.Publisher(address, **self._publisher_options) as publisher:
            async with publisher.version(number, declare=declared, **options) as version:
                self._was_opened = True
                for bucket in buckets(_kept(pairs), self._bucket_size, _nbytes):
                    await version.push(bucket)
        if self._keeps:
            self._declared = declared

    async def _give_up(self, address: str, number: int, trainer_epoch: int, reason: str) -> None:
        """Aborts the version, so that those who wait for it hear that it will not come. If no other rank opens it, it
        is opened for that."""
        until = time.monotonic() + (_FOR_OTHER_RANKS if self._is_sharded else 0.0)
        try:
            async with aio.Publisher(address, **self._publisher_options) as publisher:
                while not await _aborted(publisher, number, reason):
                    if time.monotonic() >= until:
                        options = dict(declare=_NOTHING, rank=0, world=1, trainer_epoch=trainer_epoch)
                        async with publisher.version(number, **options) as version:
                            await version.abort(reason)
                        return
                    await asyncio.sleep(0.1)
        except RefitError:  # the failure itself is what counts
            pass


async def _aborted(publisher: aio.Publisher, number: int, reason: str) -> bool:
    """False: nobody has opened it yet."""
    try:
        await publisher.abort(number, reason)
    except NotFound:
        return False
    return True


def _drain(pairs: Iterator[Pair]) -> None:
    for _ in pairs:
        pass


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


def _parts(declare: Optional[Tensors]) -> Optional[Parts]:
    if declare is None:
        return None
    return [(name, part_of(name, tensor)) for name, tensor in intake.items_of(declare)]


def _gathered(pairs: Iterable[Pair]) -> Tuple[Parts, List[Pair]]:
    """(what to declare, copies of this rank's tensors in pageable host memory)."""
    parts: Parts = []

    def declared() -> Iterator[Pair]:
        for name, tensor in pairs:
            parts.append((name, part_of(name, tensor)))
            yield name, tensor

    here: List[Pair] = list(_kept(declared(), begin=_pageable_copy))
    return parts, here


def _kept(pairs: Iterable[Pair], begin: Optional[Begin] = None) -> Iterator[Tuple[str, Lease]]:
    """Of each tensor what this rank holds, in host memory that the generator cannot change."""
    locals_of = ((name, intake.local(name, tensor)) for name, tensor in pairs)
    return ((name, lease.kept(name)) for name, lease in on_host(locals_of, begin))


def _pageable_copy(tensor: Any) -> Callable[[], Any]:
    copied = tensor.cpu()
    return lambda: copied


def _nbytes(lease: Lease) -> int:
    return int(lease.memory.size)
