"""A version under way: what Publisher.version() and Service.version() give."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from refit import _refit
from refit.calls import cancellable
from refit.dtensor import is_dtensor, local_part
from refit.errors import FailedPrecondition, InvalidArgument, NotFound
from refit.progress import OnProgress, told_to
from refit.staging import on_host
from refit.tensors import describe, dtype_name, items_of, lend

Tensors = Union[Mapping[str, Any], Iterable[Tuple[str, Any]]]

# Memory that is lent to one call: large enough that the calls do not count.
_LENT_BYTES = 64 << 20
_LENT_TENSORS = 1024


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


class Version:
    """One version, as a transaction: committed as a whole when the ``with`` block ends, aborted if it raises.

    Not thread-safe.
    """

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
        self.info: Optional[VersionInfo] = None
        if declare is not None:
            self._open([part_of(name, tensor) for name, tensor in self._wanted(declare)])

    def push(self, tensors: Tensors, progress: Union[bool, OnProgress, None] = None) -> None:
        """Pushes native tensors, such as ``model.state_dict()``. Returns once their memory was read, or is kept.

        The first push of a version that was opened without `declare` opens it: it must bring all tensors. Otherwise
        each push may bring some of those declared, in any order, also from a generator.

        Args:
            tensors: by name. Tensors of torch on any device (DTensors: this rank's part), NumPy arrays, or what speaks
                DLPack or the buffer protocol. They must not change until the version is committed.
            progress: True for a bar, or a function that hears of (bytes done, bytes in all).
        Raises:
            InvalidArgument: naming the tensor, for a dtype that is not known, a tensor without data, or one that is not as
                it was declared.
            RefitError: as the service says; the version is aborted then.
        """
        if self._is_over:
            raise FailedPrecondition(f"version {self.number} is over: nothing can be pushed", version=self.number)
        pairs = self._wanted(tensors)
        if self._push is None:
            pairs = list(pairs)
            self._open([part_of(name, tensor) for name, tensor in pairs])
        with told_to(progress, f"push of version {self.number}") as tell, cancellable(self._cancel):
            self._append_all(pairs, tell)

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

    def _append_all(self, pairs: Iterable[Tuple[str, Any]], tell: Optional[OnProgress]) -> None:
        total = sum(part.nbytes for part in self._declared)
        done = 0
        lent: List[Tuple[int, "_refit.Lent"]] = []
        lent_bytes = 0
        for index, memory in self._memories(pairs):
            lent.append((index, memory))
            lent_bytes += memory.size
            if lent_bytes >= _LENT_BYTES or len(lent) >= _LENT_TENSORS:
                self._append(lent)
                done += lent_bytes
                if tell is not None:
                    tell(done, total)
                lent, lent_bytes = [], 0
        self._append(lent)
        if tell is not None:
            tell(done + lent_bytes, total)

    def _append(self, lent: List[Tuple[int, "_refit.Lent"]]) -> None:
        try:
            self._push.append(lent)
        except BaseException:
            self._end()  # a push that failed is over
            raise

    def _memories(self, pairs: Iterable[Tuple[str, Any]]) -> Iterable[Tuple[int, "_refit.Lent"]]:
        for name, tensor in on_host(self._locals(pairs)):
            dtype, shape, memory = lend(name, tensor)
            index = self._index[name]
            declared = self._declared[index]
            if (dtype, shape) != (declared.dtype, declared.box.sizes) and declared.nbytes != 0:
                raise InvalidArgument(
                    f"tensor {name}: {declared!r} was declared, got {dtype} {list(shape)}",
                    tensor=name,
                    version=self.number,
                )
            yield index, memory

    def _locals(self, pairs: Iterable[Tuple[str, Any]]) -> Iterable[Tuple[str, Any]]:
        for name, tensor in pairs:
            index = self._index.get(name)
            if index is None:
                raise NotFound(
                    f"tensor {name}: it was not declared to version {self.number}", tensor=name, version=self.number
                )
            if self._declared[index].nbytes == 0 or self._push.unneeded(index):
                continue
            yield name, tensor.to_local() if is_dtensor(tensor) else tensor
