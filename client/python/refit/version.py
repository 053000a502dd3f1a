"""A version under way: what Publisher.version() and Service.version() give."""

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
from refit.holding import Holding
from refit.intake import Lease, describe, items_of
from refit.progress import OnProgress, told_to
from refit.staging import on_host
from refit.unpicklable import Unpicklable

Tensors = Union[Mapping[str, Any], Iterable[Tuple[str, Any]]]

Pair = Tuple[str, Any]

# Memory that is lent to one call: large enough that the calls do not count.
_LENT_BYTES = 64 << 20
_LENT_TENSORS = 1024
# Of what would have to be read at once, that much is copied instead.
_COPIED_BYTES = 1 << 20


@dataclass(frozen=True)
class VersionInfo:
    """What the service says of a version.

    Attributes:
        model, version: which one it is.
        state: "open", "committed", "aborted" or "retired".
        tensors: number of Hugging Face tensors.
        bytes: of all of them.
        adapter: what converts the native tensors.
        manifest_digest: over names, dtypes, shapes and values; None before it is committed.
        installs_held: workers stage it, and install it once it is released.
        spooled: it is on the service's disk.
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


# Opens the version of these native tensors (this rank's parts of them), and gives the native half's push.
Opener = Callable[[List["_refit.Part"]], Any]


def part_of(name: str, tensor: Any) -> "_refit.Part":
    """What to declare: of a tensor (of a DTensor, the part that this rank holds), of (dtype, shape), or a part as it is."""
    if isinstance(tensor, _refit.Part):
        return tensor
    if isinstance(tensor, tuple) and len(tensor) == 2:  # (dtype, shape)
        return _refit.Part(name, dtype_name(tensor[0]), list(tensor[1]))
    dtype, shape = describe(name, tensor)
    return _refit.Part(name, dtype, shape, local_part(name, tensor)[0] if is_dtensor(tensor) else None)


class Version(Unpicklable):
    """One version, as a transaction: committed as a whole when the ``with`` block ends, aborted if it raises.

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
        cancel: Callable[[], Any] = lambda: None,
        on_end: Callable[[], Any] = lambda: None,
    ):
        """Publisher.version() and Service.version() make one. `cancel` ends its calls from another thread; `on_end` is
        called once it was committed or aborted in good order."""
        self.number = number
        self._cancel = cancel
        self._on_end = on_end
        self._open_push = open_push
        self._exclude = re.compile(exclude_key_regex) if exclude_key_regex else None
        self._push: Any = None
        self._index: Dict[str, int] = {}
        self._declared: List["_refit.Part"] = []
        self._is_over = False
        self._is_declared = declare is not None
        self.info: Optional[VersionInfo] = None
        if declare is not None:
            self._open([part_of(name, tensor) for name, tensor in self._wanted(declare)])

    def push(self, tensors: Tensors, progress: Union[bool, OnProgress, None] = None) -> None:
        """Pushes native tensors, such as ``model.state_dict()``. Once it returns, all their memory was read: they may be
        changed and freed.

        The first push of a version that was opened without `declare` opens it: it must bring all tensors. Otherwise
        each push may bring some of those declared, in any order, also from a generator.

        Args:
            tensors: by name. Tensors of torch on any device (DTensors: this rank's part), NumPy arrays, or what speaks
                DLPack or the buffer protocol. Of a dict or a list, none may change before push() returns. Of a generator
                or any other iterable, to a version with `declare`, each is read, or its copy from the device begun in the
                current stream, before the next one is asked for: it may use its memory again. Without `declare` all
                must be there before the first is read; memory that is used again is noticed then, as far as it can be.
            progress: True for a bar, or a function that hears of (bytes done, bytes in all).
        Raises:
            InvalidArgument: naming the tensor, for a dtype that is not known, a tensor without data, memory that cannot be
                read or was changed meanwhile, or one that is not as it was declared.
            RefitError: as the service says; the version is aborted then.
        """
        with told_to(progress, f"push of version {self.number}") as tell:
            for step in self.push_steps(tensors, tell):
                step()

    def push_steps(self, tensors: Tensors, tell: Optional[OnProgress]) -> Iterator[Callable[[], None]]:
        """What push() does over the network, step by step: each is to be called, in any thread, before the next is asked
        for. All else, such as asking `tensors` for the next one and beginning a device's copies, happens in the thread
        that asks for the steps: a trainer's streams, modes and collectives belong to it."""
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
        """Makes it visible to workers as a whole, once all ranks have committed.

        Raises:
            FailedPrecondition: naming a tensor that was not pushed, or if nothing was pushed at all.
            Aborted: another rank gave up.
        """
        if self._push is None:
            raise FailedPrecondition(f"version {self.number}: nothing was pushed", version=self.number)
        with cancellable(self._cancel):
            self.info = VersionInfo.of(self._push.commit())
        self._end()
        self._on_end()
        return self.info

    def abort(self, reason: str) -> None:
        """Gives it up; no worker sees any of it. Idempotent."""
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
            except Exception:  # what is under way counts
                pass
        self._end()  # without a word, the service aborts it too

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
        for name, tensor in items_of(tensors):
            if self._exclude is None or self._exclude.match(name) is None:
                yield name, tensor

    def _open(self, parts: List["_refit.Part"]) -> None:
        with cancellable(self._cancel):
            self._push = self._open_push(parts)
        self._declared = parts
        self._index = {part.name: index for index, part in enumerate(parts)}
        self.info = VersionInfo.of(self._push.summary())

    def _batches(self, pairs: Iterable[Pair], lasts: bool) -> Iterator[List["_Item"]]:
        """What is lent to one call each. Unless the pairs last, the next one is asked for only when those before are read,
        or copied if they are small."""
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
            self._give_up(error)  # a push that failed is over
            raise

    def _give_up(self, error: BaseException) -> None:
        """Without a word the service aborts it too, only later, and does not know why. The connection may be at fault, and
        is not used again."""
        push = self._push
        self._end()
        if push is None or not isinstance(error, Exception):
            return
        try:
            with cancellable(self._cancel):
                push.abort(f"{type(error).__name__}: {error}"[:1000])
        except Exception:  # what is under way counts
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
    index: int  # into what was declared
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


# Their values are all there at once, as another iterable's need not be.
_LASTING = (list, tuple, type({}.items()), type(OrderedDict().items()))


def _lasts(tensors: Tensors) -> bool:
    return isinstance(tensors, _LASTING) or getattr(type(tensors), "items", None) in (dict.items, OrderedDict.items)
