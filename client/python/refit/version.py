"""A version that is being pushed: Publisher.version() and Service.version() return it."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

from refit import _refit, intake
from refit.calls import cancellable
from refit.dtensor import is_dtensor, local_part
from refit.dtypes import dtype_name
from refit.errors import FailedPrecondition, InvalidArgument, NotFound
from refit.families import excludes_native_names
from refit.holding import Holding
from refit.intake import Lease, describe, items_of
from refit.progress import OnProgress, told_to
from refit.staging import on_host
from refit.unpicklable import Unpicklable

Tensors = Union[Mapping[str, Any], Iterable[Tuple[str, Any]]]

Pair = Tuple[str, Any]

# How many bytes one call lends: so many that the cost of a call does not matter.
_LENT_BYTES = 64 << 20
_LENT_TENSORS = 1024
# Up to this size, memory that would have to be read at once is copied instead.
_COPIED_BYTES = 1 << 20


@dataclass(frozen=True)
class VersionInfo:
    """The service's information about a version.

    Attributes:
        model, version: which one it is.
        state: "open", "committed", "aborted" or "retired".
        tensors: number of Hugging Face tensors.
        bytes: sum of their sizes.
        adapter: converts the native tensors.
        manifest_digest: over names, dtypes, shapes and values; None before it is committed.
        installs_held: workers stage it, and install it once it is released.
        spooled: whether it is on the service's disk.
        trainer_epoch: as the trainer gave it.
    """

    model: str
    version: int
    state: str
    tensors: int
    bytes: int
    adapter: str
    manifest_digest: Optional[int]
    installs_held: bool
    spooled: bool
    trainer_epoch: int

    @classmethod
    def of(cls, summary: Dict[str, Any]) -> "VersionInfo":
        return cls(**{field: summary[field] for field in cls.__dataclass_fields__})


# Opens the version of these native tensors (this rank's parts of them). Returns the native module's push.
Opener = Callable[[List["_refit.Part"]], Any]


def _is_tensor(name: str, tensor: Any) -> bool:
    try:
        part_of(name, tensor)
    except InvalidArgument:
        return False
    return True


def part_of(name: str, tensor: Any) -> "_refit.Part":
    """Makes the declaration of a tensor (of a DTensor: of the part that this rank holds), of (dtype, shape), or takes a
    part as it is."""
    if isinstance(tensor, _refit.Part):
        return tensor
    if isinstance(tensor, tuple) and len(tensor) == 2:  # (dtype, shape)
        return _refit.Part(name, dtype_name(tensor[0]), list(tensor[1]))
    dtype, shape = describe(name, tensor)
    return _refit.Part(name, dtype, shape, local_part(name, tensor)[0] if is_dtensor(tensor) else None)


class Version(Unpicklable):
    """One version as a transaction: committed as a whole when the ``with`` block ends, aborted if the block raises.

    Not thread-safe.
    """

    _unpicklable_since = (
        "it is a transaction of this process; ranks that push one together each open it themselves, with rank= and "
        "world="
    )

    def __init__(
        self,
        number: int,
        open_push: Opener,
        exclude_key_regex: str = "",
        declare: Optional[Tensors] = None,
        adapter: str = "gemma4_moe",
        cancel: Callable[[], Any] = lambda: None,
        on_end: Callable[[], Any] = lambda: None,
    ):
        """Publisher.version() and Service.version() call it. Another thread can end the calls with `cancel`. `on_end`
        is called after a regular commit or abort."""
        self.number = number
        self._cancel = cancel
        self._on_end = on_end
        self._open_push = open_push
        self._exclude = re.compile(exclude_key_regex) if exclude_key_regex else None
        self._excludes_native = excludes_native_names(adapter)
        self._push: Any = None
        self._index: Dict[str, int] = {}
        self._declared: List["_refit.Part"] = []
        self._is_over = False
        self._is_declared = declare is not None
        self.info: Optional[VersionInfo] = None
        if declare is not None:
            self._open([part_of(name, tensor) for name, tensor in self._wanted(declare)])

    def push(self, tensors: Tensors, progress: Union[bool, OnProgress, None] = None) -> None:
        """Pushes native tensors, such as ``model.state_dict()``. When it returns, all their memory has been read: you
        may change or free them.

        Without `declare`, the first push opens the version and must have all tensors. Otherwise each push may have some
        of the declared tensors, in any order, also from a generator.

        Args:
            tensors: by name. torch tensors on any device (DTensors: this rank's part), NumPy arrays, or objects with
                DLPack or the buffer protocol. Tensors of a dict or a list must not change before push() returns. A
                generator or other iterable may reuse its memory if the version has `declare`: each tensor is read, or
                its copy from the device begun in the current stream, before the next one is taken. Without `declare`,
                all tensors must be there before the first is read; reused memory is then detected as far as possible.
            progress: True for a bar, or a function that is called with (bytes done, bytes in all).
        Raises:
            InvalidArgument: naming the tensor: its dtype is unknown, it has no data, its memory cannot be read or was
                changed meanwhile, or it differs from its declaration.
            RefitError: an error of the service; the version is aborted then.
        """
        with told_to(progress, f"push of version {self.number}") as tell:
            for step in self.push_steps(tensors, tell):
                step()

    def push_steps(self, tensors: Tensors, tell: Optional[OnProgress]) -> Iterator[Callable[[], None]]:
        """The network calls of push(), as steps. Call each, in any thread, before taking the next. Everything else,
        such as taking the next of `tensors` and beginning copies from a device, happens in the thread that takes the
        steps: a trainer's streams, modes and collectives belong to that thread."""
        if self._is_over:
            raise FailedPrecondition(f"version {self.number} is over: nothing can be pushed", version=self.number)
        pairs = self._wanted(tensors)
        lasts = _lasts(tensors)
        if self._push is None:
            pairs = list(pairs if lasts else Holding(pairs))
            lasts = True
            yield partial(self._open, [part_of(name, tensor) for name, tensor in pairs])
        total = sum(part.nbytes for part in self._declared)
        done = 0
        for batch in self._batches(pairs, lasts):
            yield partial(self._append, batch, until_read=not lasts)
            done += sum(item.lease.memory.size for item in batch)
            if tell is not None:
                tell(done, total)
        yield partial(self._append, [], until_read=True)
        if tell is not None:
            tell(done, total)

    def commit(self) -> VersionInfo:
        """Commits the version. Workers see it, as a whole, once all ranks have committed.

        Raises:
            FailedPrecondition: naming a tensor that was not pushed, or if nothing was pushed at all.
            Aborted: another rank aborted it.
        """
        if self._push is None:
            raise FailedPrecondition(f"version {self.number}: nothing was pushed", version=self.number)
        with cancellable(self._cancel):
            self.info = VersionInfo.of(self._push.commit())
        self._end()
        self._on_end()
        return self.info

    def abort(self, reason: str) -> None:
        """Aborts the version; no worker sees any of it. Idempotent."""
        push, is_over = self._push, self._is_over
        self._end()
        if push is not None and not is_over:
            with cancellable(self._cancel):
                push.abort(reason)
            self._on_end()

    def __enter__(self) -> "Version":
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], _: Any) -> None:
        if error is None:
            if not self._is_over:
                self._commit_or_abort()
            return
        if isinstance(error, Exception):
            try:
                self.abort(f"{type(error).__name__}: {error}"[:1000])
            except Exception:  # the error that is being raised matters more
                pass
        self._end()  # without an abort, the service notices the end and aborts it

    def _commit_or_abort(self) -> None:
        try:
            self.commit()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        self._is_over = True
        self._push = None

    def _wanted(self, tensors: Tensors) -> Iterable[Tuple[str, Any]]:
        """Without those that are excluded for sure. If Hugging Face names decide, the service says which these are; what
        is no tensor, such as a module's extra state, has none."""
        for name, tensor in items_of(tensors):
            is_named = self._exclude is not None and self._exclude.match(name) is not None
            if not is_named or not (self._excludes_native or not _is_tensor(name, tensor)):
                yield name, tensor

    def _open(self, parts: List["_refit.Part"]) -> None:
        with cancellable(self._cancel):
            self._push = self._open_push(parts)
        self._declared = parts
        self._index = {part.name: index for index, part in enumerate(parts)}
        self.info = VersionInfo.of(self._push.summary())

    def _batches(self, pairs: Iterable[Pair], lasts: bool) -> Iterator[List["_Item"]]:
        """Splits the items into batches, one for each call. Unless the tensors last, the next item is taken only after
        the current one has been read, or copied if it is small."""
        batch: List[_Item] = []
        size = 0
        for item in self._items(pairs):
            is_lent = not (lasts or item.lease.is_own)
            if is_lent and item.lease.memory.size <= _COPIED_BYTES:
                item, is_lent = item.kept(), False
            batch.append(item)
            size += item.lease.memory.size
            if is_lent or size >= _LENT_BYTES or len(batch) >= _LENT_TENSORS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _append(self, batch: List["_Item"], until_read: bool) -> None:
        try:
            with cancellable(self._cancel):
                self._push.append([(item.index, item.lease.memory) for item in batch], until_read)
            for item in batch:
                item.check_unchanged(self.number)
        except BaseException as error:
            self._give_up(error)  # a failed push cannot continue
            raise

    def _give_up(self, error: BaseException) -> None:
        """Tells the service to abort. Without this call it also aborts, but later and without the reason. The
        connection may have caused the failure, and is not reused."""
        push = self._push
        self._end()
        if push is None or not isinstance(error, Exception):
            return
        try:
            with cancellable(self._cancel):
                push.abort(f"{type(error).__name__}: {error}"[:1000])
        except Exception:  # the error that is being raised matters more
            pass

    def _items(self, pairs: Iterable[Pair]) -> Iterator["_Item"]:
        for name, lease in on_host(self._locals(pairs)):
            index = self._index[name]
            declared = self._declared[index]
            if (lease.dtype, lease.shape) != (declared.dtype, declared.box.sizes) and declared.nbytes != 0:
                raise InvalidArgument(
                    f"tensor {name}: {declared!r} was declared, got {lease.dtype} {list(lease.shape)}",
                    tensor=name,
                    version=self.number,
                )
            yield _Item(name, index, lease)

    def _locals(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        for name, tensor in pairs:
            index = self._index.get(name)
            if index is None:
                raise NotFound(
                    f"tensor {name}: it was not declared to version {self.number}; {self._how_to_declare()}",
                    tensor=name,
                    version=self.number,
                )
            if self._declared[index].nbytes == 0 or self._push.unneeded(index):
                continue
            yield name, intake.local(name, tensor)

    def _how_to_declare(self) -> str:
        if self._is_declared:
            return "declare= must name all tensors"
        return (
            "without declare= the first push brings all tensors: push them at once, or, to push them in parts, open it "
            "with declare={name: (dtype, shape), ...}"
        )

    def __repr__(self) -> str:
        state = self.info.state if self.info is not None else "not opened"
        if self._is_over and state in ("open", "not opened"):
            state = "over, not known to be committed"
        model = f"{self.info.model}/" if self.info is not None else ""
        return f"refit.Version({model}{self.number}, {state})"


class _Item(NamedTuple):
    name: str
    index: int  # into the declared tensors
    lease: Lease

    def kept(self) -> "_Item":
        return self._replace(lease=self.lease.kept(self.name))

    def check_unchanged(self, version: int) -> None:
        if self.lease.is_unchanged():
            return
        raise InvalidArgument(
            f"tensor {self.name}: it was changed or freed while version {version} was pushed; push() must return before "
            "that, or push a copy",
            tensor=self.name,
            version=version,
        )


# Containers that hold all their values at once; other iterables may make them one by one.
_LASTING = (list, tuple, type({}.items()), type(OrderedDict().items()))


def _lasts(tensors: Tensors) -> bool:
    return isinstance(tensors, _LASTING) or getattr(type(tensors), "items", None) in (dict.items, OrderedDict.items)
