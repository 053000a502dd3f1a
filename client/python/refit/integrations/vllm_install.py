"""From a version to the model of a vLLM worker: all of it on all ranks, or nothing."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, ContextManager, Dict, Iterable, Iterator, Optional, Set, Tuple

from refit.errors import FailedPrecondition, InvalidArgument
from refit.integrations import vllm_checkpoint, vllm_ranks
from refit.integrations.agreement import UNTOUCHED, Agreement
from refit.integrations.contents import Contents
from refit.integrations.vllm_reload import Reload, Slot
from refit.pulled_version import PulledVersion

Pair = Tuple[str, Any]
Load = Callable[[Iterable[Pair]], Any]

# A child of vLLM's logger, so that its handlers and levels hold.
_log = logging.getLogger("vllm.refit")

# Beyond an update's deadline: what the ranks need to hear of each other.
_MARGIN = 10.0
# Seconds by which one rank may fill its part of the model later than another.
_LOAD_SKEW = 300.0


@dataclass(frozen=True)
class Installed:
    """An update, as it went on this rank.

    Attributes:
        version, bytes, adapter: what was installed.
        pull_seconds: how long the version took to come, beside the engine or not.
        wait_seconds: how long the engine waited for it.
        check_seconds: the model's loaders were asked whether they take it.
        agree_seconds: this rank waited for the others.
        load_seconds: the model was filled.
        total_seconds: the engine stood still.
    """

    version: int
    bytes: int
    adapter: str
    pull_seconds: float
    wait_seconds: float
    check_seconds: float
    agree_seconds: float
    load_seconds: float
    total_seconds: float

    def __str__(self) -> str:
        return (
            f"version {self.version} installed ({self.bytes / 1e6:.1f} MB, adapter {self.adapter}): pulled in "
            f"{self.pull_seconds:.3f} s; the engine stood still for {self.total_seconds:.3f} s: {self.wait_seconds:.3f} "
            f"waiting for the pull, {self.check_seconds:.3f} checking, {self.agree_seconds:.3f} for other ranks, "
            f"{self.load_seconds:.3f} loading"
        )


class Installer:
    """Of one model, on one of the engine's ranks. For one thread, while no step of the engine runs."""

    def __init__(
        self,
        model: Any,
        model_config: Any,
        vllm_config: Any = None,
        device: Any = None,
        *,
        agreement: Optional[Agreement] = None,
    ):
        """
        Args:
            vllm_config: by which the checkpoint is read again, if the first version cannot be loaded.
            device: see Reload.
            agreement: of all ranks of the engine; None: there is one.
        """
        self._model = model
        self._model_config = model_config
        self._vllm_config = vllm_config
        self._device = device
        self._agreement = agreement if agreement is not None else Agreement([], 0)
        self._contents = Contents()
        self._shells: Dict[str, Any] = {}
        self._slots: Optional[Set[Slot]] = None  # that the checkpoint fills
        self._in_use = [_Source("the checkpoint", self._read_checkpoint)]
        self._torn = _Torn(model)

    @property
    def is_torn(self) -> bool:
        """The model has weights of two versions, and refuses to run."""
        return self._torn.why is not None

    def learn(self) -> None:
        """Looks at what the model's own checkpoint has, before the first version: what later comes must be like it.
        Where the headers of its files cannot be read, or the model's loaders want values, versions are compared with the
        model itself."""
        try:
            shells = vllm_checkpoint.shells(self._model_config)
            if shells is None or not Reload.can_prepare():
                return
            reload = self._new_reload()
            try:
                with _in_config_of(self._vllm_config):
                    reload.prepare(shells.items())
                self._slots = reload.filled()
            finally:
                reload.abandon()
            self._shells = shells
        except Exception as error:
            _log.debug("refit: the checkpoint's contents stay unknown: %s: %s", type(error).__name__, error)

    def install(
        self,
        take: ContextManager[PulledVersion],
        pull_again: Callable[[int, int], PulledVersion],
        *,
        deadline: float,
        allow_partial: bool = False,
        load: Optional[Load] = None,
    ) -> Installed:
        """Loads the version that `take` gives, if all ranks can.

        Args:
            take: gives the version, and hears whether it was installed.
            pull_again: the version of this number and trainer_epoch once more, should a later one fail in the middle.
            deadline: seconds that the ranks wait for each other's pulls.
            allow_partial: the version may lack tensors of the model, whose former values then stay.
            load: the worker's own, where it has begun a reload itself (vLLM up to 0.22).
        Raises:
            InvalidArgument: naming version and tensor: the model does not take it. Nothing was touched.
            FailedPrecondition: another rank could not, and nothing was touched; or the load failed in the middle, and
                the former weights were loaded again; or they could not be: the model is torn.
            RefitError: as `take`. Nothing was touched.
        """
        clock = _Clock()
        self._contents.allow_partial = allow_partial and not self.is_torn  # all of a torn model must come
        with ExitStack() as stack:
            reload = self._new_reload() if load is None else None
            if reload is not None:
                stack.callback(reload.abandon)
            with self._all_or_none(deadline + _MARGIN) as agreed:
                version = stack.enter_context(take)
                agreed(f"version {version.number} with digest {version.info.manifest_digest}")
                clock.lap("wait")
                self._check(version)
                if reload is not None:
                    self._prepare(reload, version)
                is_whole = not self._contents.allow_partial or (reload is not None and reload.fills(self._slots))
                clock.lap("check")
            clock.lap("agree")
            if reload is not None:
                self._fill(version, reload)
            elif load is not None:
                load(list(version))
            clock.lap("load")
            self._contents.accept(version)
            again = partial(pull_again, version.number, version.info.trainer_epoch)
            self._in_use = ([] if is_whole else self._in_use) + [_Source(f"version {version.number}", again)]
            self._torn.mend()
            installed = clock.installed(version)
        if vllm_ranks.is_last():
            _log.info("refit: %s", installed)
        return installed

    def _new_reload(self) -> Reload:
        return Reload(self._model, self._model_config, self._device)

    def _check(self, version: PulledVersion) -> None:
        """Names, dtypes and shapes, without the model."""
        self._contents.check(version)
        for tensor in version.tensors:
            shell = self._shells.get(tensor.name)
            if shell is not None and tuple(shell.shape) != tensor.shape:
                raise InvalidArgument(
                    f"version {version.number}, tensor {tensor.name}: expected {list(shell.shape)} as in the checkpoint "
                    f"that the server was started with, got {tensor.dtype} {list(tensor.shape)}; nothing was loaded",
                    tensor=tensor.name,
                    version=version.number,
                )

    def _prepare(self, reload: Reload, version: PulledVersion) -> None:
        """By the model's own loaders, which write nothing yet."""
        given = _Given(version)
        try:
            reload.prepare(given)
        except Exception as error:
            raise InvalidArgument(
                f"version {version.number}, tensor {given.name}: the model does not take it: {type(error).__name__}: "
                f"{str(error) or 'its shape or dtype does not fit'}; it came as {given.kind}; nothing was loaded",
                tensor=given.name,
                version=version.number,
            ) from error
        if reload.can_prepare() and (self._contents.allow_partial or self.is_torn or not self._contents.is_known):
            self._check_filled(reload, version)

    def _check_filled(self, reload: Reload, version: PulledVersion) -> None:
        """The first version, and any part of one, is compared with the checkpoint, or else with the model."""
        is_part = self._contents.allow_partial
        missing = reload.unfilled(self._slots, in_touched_layers=is_part)
        if missing:
            raise InvalidArgument(
                f"version {version.number}: it has no tensor for {', '.join(missing[:3])}"
                f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''} of the model; nothing was loaded; "
                + ("a layer is filled whole or not at all" if is_part else "set allow_partial if this is meant"),
                version=version.number,
            )

    def _fill(self, version: PulledVersion, reload: Reload) -> None:
        """From here on the model changes. Fails on all ranks or none, with the former weights in place if possible."""
        try:
            with self._all_or_none(_LOAD_SKEW, "the former weights are loaded again"):
                reload.commit()
        except BaseException as error:
            reload.abandon()
            words = f"version {version.number}: its load failed in the middle: {type(error).__name__}: {error}"
            if not isinstance(error, Exception):  # the process is to end
                self._torn.tear(f"{words}; the model is torn")
                raise
            self._go_back(words, version.number)
            former = " and ".join(source.name for source in self._in_use)
            raise FailedPrecondition(f"{words}; {former} is in use again", version=version.number) from error

    def _go_back(self, words: str, number: int) -> None:
        """To what was in use before."""
        source = self._in_use[0]
        try:
            with self._all_or_none(_LOAD_SKEW, "the model is torn"):
                for source in self._in_use:
                    self._load_now(source.read())
        except BaseException as error:
            self._torn.tear(
                f"{words}; {source.name} could not be loaded again: {type(error).__name__}: {error}; the model is "
                "torn: it has weights of two versions, and refuses requests until an update succeeds"
            )
            if not isinstance(error, Exception):
                raise
            raise FailedPrecondition(self._torn.why or "", version=number) from error

    def _load_now(self, weights: Iterable[Pair]) -> None:
        reload = self._new_reload()
        try:
            reload.prepare(weights)
            reload.commit()
        finally:
            reload.abandon()

    def _read_checkpoint(self) -> Iterable[Pair]:
        return vllm_checkpoint.weights(self._vllm_config, self._model_config, self._model)

    @contextmanager
    def _all_or_none(self, deadline: float, way_out: str = UNTOUCHED) -> Iterator[Callable[[str], None]]:
        """What fails in the block on any rank fails on all. The block may say what it is about."""
        subjects = [""]
        failure: Optional[BaseException] = None
        try:
            yield lambda words: subjects.__setitem__(0, words)
        except BaseException as error:
            failure = error
        self._agreement.settle(failure, subjects[0], deadline=deadline, way_out=way_out)


@dataclass(frozen=True)
class _Source:
    """Of weights in use, to be read once more."""

    name: str
    read: Callable[[], Iterable[Pair]]


class _Given:
    """A version's (name, tensor) pairs, and which of them was given last."""

    def __init__(self, version: PulledVersion):
        self._version = version
        self.name = ""
        self.kind = ""

    def __iter__(self) -> Iterator[Pair]:
        for tensor in self._version.tensors:
            self.name, self.kind = tensor.name, f"{tensor.dtype} {list(tensor.shape)}"
            yield tensor.name, tensor.torch()


class _Torn:
    """A model that must not run: each forward pass fails, and says why."""

    def __init__(self, model: Any):
        self._model = model
        self._hook: Any = None
        self.why: Optional[str] = None

    def tear(self, why: str) -> None:
        self.mend()
        self.why = why
        self._hook = self._model.register_forward_pre_hook(self._refuse)
        _log.error("refit: %s", why)

    def mend(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook, self.why = None, None

    def _refuse(self, *_: Any) -> None:
        raise FailedPrecondition(self.why or "")


class _Clock:
    """Laps of one install, by the steady clock."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._laps: Dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self._laps[name] = now - self._last
        self._last = now

    def installed(self, version: PulledVersion) -> Installed:
        laps = {f"{name}_seconds": seconds for name, seconds in self._laps.items()}
        info = version.info
        return Installed(
            version=version.number,
            bytes=info.bytes,
            adapter=info.adapter,
            pull_seconds=version.seconds,
            total_seconds=self._last - self._began,
            **laps,
        )


def agreement_of(parallel_config: Any) -> Agreement:
    """Of the workers of this engine."""
    return Agreement(vllm_ranks.groups(parallel_config), _LOAD_SKEW)


def _in_config_of(vllm_config: Any) -> ContextManager[Any]:
    """As vLLM's worker calls an engine's updates: layers ask for the configuration while they load."""
    if vllm_config is None:
        return nullcontext()
    try:
        from vllm.config import set_current_vllm_config
    except ImportError:
        return nullcontext()
    context: ContextManager[Any] = set_current_vllm_config(vllm_config)
    return context
