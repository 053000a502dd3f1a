"""asyncio variants: the same calls, awaited. A task that is cancelled ends its call, and leaves nothing half done.

::

    async with refit.aio.Publisher("host:port") as publisher:
        async with publisher.version(42, dtype="bf16") as v:
            await v.push(model.state_dict())

    async with refit.aio.Subscriber("host:port") as sub:
        version = await sub.pull("latest")
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import Any, AsyncIterator, Callable, Optional, Tuple, Union

from refit import publisher as _publisher
from refit import subscriber as _subscriber
from refit import version as _version
from refit.calls import Calls
from refit.progress import OnProgress, told_to


async def _run(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The call in a thread of its own. If the task is cancelled, so is the call; the task ends once the call has."""
    calls = Calls()
    loop = asyncio.get_running_loop()
    result: "asyncio.Future[Any]" = loop.create_future()

    def settle(value: Any, error: Optional[BaseException]) -> None:
        result.set_result(value) if error is None else result.set_exception(error)

    def work() -> None:
        outcome: Tuple[Any, Optional[BaseException]]
        try:
            outcome = (calls.run(functools.partial(call, *args, **kwargs)), None)
        except BaseException as error:  # the awaiting task's to handle
            outcome = (None, error)
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    threading.Thread(target=work, name="refit", daemon=True).start()
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        calls.cancel()
        await asyncio.wait([result])
        result.exception()  # is seen
        raise


class Version:
    """refit.Version, awaited."""

    def __init__(self, make: Callable[[], _version.Version]):
        self._make = make
        self._version: Optional[_version.Version] = None

    async def __aenter__(self) -> "Version":
        self._version = await _run(self._make)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await _run(self._under_way.__exit__, *error)

    @property
    def _under_way(self) -> _version.Version:
        assert self._version is not None, "use it in an `async with` block"
        return self._version

    @property
    def info(self) -> Optional[_version.VersionInfo]:
        return self._under_way.info

    async def push(self, tensors: _version.Tensors, progress: Union[bool, OnProgress, None] = None) -> None:
        """As refit.Version.push(). The tensors are asked for, and copies from a device are begun, in this thread and its
        current streams; only the network is left to another."""
        version = self._under_way
        with told_to(progress, f"push of version {version.number}") as tell:
            for step in version.push_steps(tensors, tell):
                await _run(step)

    async def commit(self) -> _version.VersionInfo:
        return await _run(self._under_way.commit)

    async def abort(self, reason: str) -> None:
        await _run(self._under_way.abort, reason)


class Publisher:
    """refit.Publisher, awaited. Connects in ``async with``."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._make = functools.partial(_publisher.Publisher, *args, **kwargs)
        self._publisher: Optional[_publisher.Publisher] = None

    async def __aenter__(self) -> "Publisher":
        self._publisher = await _run(self._make)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._connected.close()

    @property
    def _connected(self) -> _publisher.Publisher:
        assert self._publisher is not None, "use it in an `async with` block"
        return self._publisher

    def version(self, number: int, **kwargs: Any) -> Version:
        """As refit.Publisher.version(), for an ``async with`` block."""
        return Version(functools.partial(self._connected.version, number, **kwargs))

    async def abort(self, version: int, reason: str) -> _version.VersionInfo:
        return await _run(self._connected.abort, version, reason)

    async def release(self, version: int) -> _version.VersionInfo:
        return await _run(self._connected.release, version)

    async def wait_for_workers(self, version: int, **kwargs: Any) -> int:
        return await _run(self._connected.wait_for_workers, version, **kwargs)


class Subscriber:
    """refit.Subscriber, awaited. Connects in ``async with``."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._make = functools.partial(_subscriber.Subscriber, *args, **kwargs)
        self._subscriber: Optional[_subscriber.Subscriber] = None

    async def __aenter__(self) -> "Subscriber":
        self._subscriber = await _run(self._make)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._connected.close()

    @property
    def _connected(self) -> _subscriber.Subscriber:
        assert self._subscriber is not None, "use it in an `async with` block"
        return self._subscriber

    async def pull(self, version: Union[int, str] = "latest", **kwargs: Any) -> _subscriber.PulledVersion:
        return await _run(self._connected.pull, version, **kwargs)

    async def watch(
        self, after: Optional[int] = None, trainer_epoch: Optional[int] = None
    ) -> AsyncIterator[_version.VersionInfo]:
        versions = await _run(self._connected.watch, after, trainer_epoch)
        while True:
            yield await _run(next, versions)

    async def follow(self, install: Callable[[_subscriber.PulledVersion], Any], **options: Any) -> None:
        """As refit.Subscriber.follow(). `install` runs in the event loop, and may be a coroutine function."""
        loop = asyncio.get_running_loop()

        async def call(version: _subscriber.PulledVersion) -> None:
            result = install(version)
            if inspect.isawaitable(result):
                await result

        def install_in_loop(version: _subscriber.PulledVersion) -> None:
            installing = call(version)
            try:
                asyncio.run_coroutine_threadsafe(installing, loop).result()
            except RuntimeError:
                installing.close()  # the loop may be closed, and never have begun it
                raise

        await _run(self._connected.follow, install_in_loop, **options)


__all__ = ["Publisher", "Subscriber", "Version"]
