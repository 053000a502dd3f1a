"""From a version to the model of a vLLM worker: all of it on all ranks, or nothing."""

from __future__ import annotations

import logging
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, ContextManager, Dict, Iterable, Optional, Set, Tuple

from refit.errors import InvalidArgument
from refit.integrations.shared.agreement import Agreement
from refit.integrations.shared.contents import Contents
from refit.integrations.shared.given import Given
from refit.integrations.shared.going_back import Former, GoingBack
from refit.integrations.vllm.checkpoint import checkpoint_shells, checkpoint_weights
from refit.integrations.vllm.installed import Clock, Installed
from refit.integrations.vllm.ranks import groups, is_last
from refit.integrations.vllm.reload import Reload, Slot
from refit.integrations.vllm.torn import Torn
from refit.pulled_version import PulledVersion

Pair = Tuple[str, Any]
Load = Callable[[Iterable[Pair]], Any]

# A child of vLLM's logger, so that its handlers and levels hold.
_log = logging.getLogger("vllm.refit")

# Beyond an update's deadline: what the ranks need to hear of each other.
_MARGIN = 10.0
# Seconds by which one rank may fill its part of the model later than another.
_LOAD_SKEW = 300.0


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
        self._torn = Torn(model)
        self._going_back = GoingBack(
            restored="{} is in use again",
            torn="the model is torn: it has weights of two versions, and refuses requests until an update succeeds",
            tear=self._torn.tear,
        )

    @property
    def is_torn(self) -> bool:
        """The model has weights of two versions, and refuses to run."""
        return self._torn.why is not None

    def learn(self) -> None:
        """Looks at what the model's own checkpoint has, before the first version: versions must be like it. Where the
        headers of its files cannot be read, or the model's loaders want values, versions are compared with the model
        itself."""
        try:
            shells = checkpoint_shells(self._model_config)
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
        clock = Clock()
        self._contents.allow_partial = allow_partial and not self.is_torn  # all of a torn model must come
        with ExitStack() as stack:
            reload = self._new_reload() if load is None else None
            if reload is not None:
                stack.callback(reload.abandon)
            with self._agreement.all_or_none(deadline=deadline + _MARGIN) as vote:
                version = stack.enter_context(take)
                vote.subject = f"version {version.number} with digest {version.info.manifest_digest}"
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
        if is_last():
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
                    f"version {version.number}, tensor {tensor.name}: expected {list(shell.shape)} as in the "
                    f"checkpoint that the server was started with, got {tensor.dtype} {list(tensor.shape)}; nothing "
                    "was loaded",
                    tensor=tensor.name,
                    version=version.number,
                )

    def _prepare(self, reload: Reload, version: PulledVersion) -> None:
        """By the model's own loaders, which write nothing yet."""
        given = Given(version)
        try:
            reload.prepare(given)
        except Exception as error:
            raise InvalidArgument(
                f"version {version.number}{given.at}: the model does not take it: {type(error).__name__}: "
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

        def fill() -> None:
            try:
                with self._agreement.all_or_none(deadline=_LOAD_SKEW, way_out="the former weights are loaded again"):
                    reload.commit()
            except BaseException:
                reload.abandon()
                raise

        former = Former(" and ".join(source.name for source in self._in_use), self._load_former)
        self._going_back.load(version.number, fill, former)

    def _load_former(self) -> None:
        """What was in use before."""
        with self._agreement.all_or_none(deadline=_LOAD_SKEW, way_out="the model is torn"):
            for source in self._in_use:
                self._load_now(source.read())
        self._torn.mend()

    def _load_now(self, weights: Iterable[Pair]) -> None:
        reload = self._new_reload()
        try:
            reload.prepare(weights)
            reload.commit()
        finally:
            reload.abandon()

    def _read_checkpoint(self) -> Iterable[Pair]:
        return checkpoint_weights(self._vllm_config, self._model_config, self._model)


@dataclass(frozen=True)
class _Source:
    """Of weights in use, to be read once more."""

    name: str
    read: Callable[[], Iterable[Pair]]


def agreement_of(parallel_config: Any) -> Agreement:
    """Of the workers of this engine."""
    return Agreement(groups(parallel_config), _LOAD_SKEW)


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
