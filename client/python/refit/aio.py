"""The same classes for asyncio: calls are awaited. Cancelling a task ends its call, and leaves nothing half done.

::

    async with refit.aio.Publisher("host:port") as publisher:
        async with publisher.version(42, dtype="bf16") as v:
            await v.push(model.state_dict())

    async with refit.aio.Subscriber("host:port") as sub:
        version = await sub.pull("latest")

They also work without ``async with``: the first awaited call connects, or opens the version; close() or commit() ends
it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import Any, AsyncIterator, Callable, Generic, Optional, Tuple, TypeVar, Union

from refit import publisher as _publisher
from refit import subscriber as _subscriber
from refit import version as _version
from refit.calls import Calls
from refit.progress import OnProgress, told_to
from refit.unpicklable import Unpicklable
from refit.version_number import version_number

_Connected = TypeVar("_Connected", _publisher.Publisher, _subscriber.Subscriber)


async def _run(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs the call in a thread of its own. If the task is cancelled, the call is cancelled too, and the task ends
    after it."""
    calls = Calls()
    loop = asyncio.get_running_loop()
    result: "asyncio.Future[Any]" = loop.create_future()

    def settle(value: Any, error: Optional[BaseException]) -> None:
        result.set_result(value) if error is None else result.set_exception(error)

    def work() -> None:
        outcome: Tuple[Any, Optional[BaseException]]
        try:
            outcome = (calls.run(functools.partial(call, *args, **kwargs)), None)
        except BaseException as error:  # the awaiting task handles it
            outcome = (None, error)
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:  # the loop is closed: no task waits any more
            pass

    threading.Thread(target=work, name="refit", daemon=True).start()
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        calls.cancel()
        await asyncio.wait([result])
        result.exception()  # marks the exception as retrieved
        raise


class _Connection(Generic[_Connected]):
    """A connection that the first call makes, in that call's thread. Thread-safe."""

    def __init__(self, make: Callable[[], _Connected]):
        self._make = make
        self._lock = threading.Lock()
        self._made: Optional[_Connected] = None

    def get(self) -> _Connected:
        """Calls that begin at the same time may each connect. The connection that is made first serves all."""
        if self._made is None:
            made = self._make()
            with self._lock:
                self._made = self._made or made
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


class Version(Unpicklable):
    """refit.Version for asyncio. ``async with``, or the first awaited call, opens it, as far as refit.Version does."""

    _unpicklable_since = _version.Version._unpicklable_since

    def __init__(self, make: Callable[[], _version.Version]):
        self._make = make
        self._version: Optional[_version.Version] = None

    async def __aenter__(self) -> "Version":
        await self._under_way()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await _run((await self._under_way()).__exit__, *error)

    async def _under_way(self) -> _version.Version:
        if self._version is None:
            self._version = await _run(self._make)
        return self._version

    @property
    def info(self) -> Optional[_version.VersionInfo]:
        """As refit.Version.info; None before the version is opened."""
        return None if self._version is None else self._version.info

    async def push(self, tensors: _version.Tensors, progress: Union[bool, OnProgress, None] = None) -> None:
        """As refit.Version.push(). This thread, with its current streams, takes the tensors from the iterator and
        begins copies from a device. Only network calls run in another thread."""
        version = await self._under_way()
        with told_to(progress, f"push of version {version.number}") as tell:
            for step in version.push_steps(tensors, tell):
                await _run(step)

    async def commit(self) -> _version.VersionInfo:
        return await _run((await self._under_way()).commit)

    async def abort(self, reason: str) -> None:
        await _run((await self._under_way()).abort, reason)


class Publisher(Unpicklable):
    """refit.Publisher for asyncio. ``async with``, or the first awaited call, connects."""

    def __init__(self, address: str, **kwargs: Any):
        self.address = address
        self._connection = _Connection(functools.partial(_publisher.Publisher, address, **kwargs))

    async def __aenter__(self) -> "Publisher":
        await _run(self._connection.get)
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    def version(self, number: int, **kwargs: Any) -> Version:
        """As refit.Publisher.version(), for an ``async with`` block."""
        number = version_number(number, least=1)
        return Version(lambda: self._connection.get().version(number, **kwargs))

    async def abort(self, version: int, reason: str) -> _version.VersionInfo:
        return await _run(lambda: self._connection.get().abort(version, reason))

    async def release(self, version: int) -> _version.VersionInfo:
        return await _run(lambda: self._connection.get().release(version))

    async def wait_for_workers(self, version: int, **kwargs: Any) -> int:
        return await _run(lambda: self._connection.get().wait_for_workers(version, **kwargs))

    async def last_run(self) -> Tuple[int, int]:
        return await _run(lambda: self._connection.get().last_run())

    async def connected_workers(self) -> int:
        return await _run(lambda: self._connection.get().connected_workers())

    async def close(self) -> None:
        """Closes the connections that are not in use."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"refit.aio.Publisher({self.address!r})"


class Subscriber(Unpicklable):
    """refit.Subscriber for asyncio. ``async with``, or the first awaited call, connects."""

    def __init__(self, address: str, **kwargs: Any):
        self.address = address
        self._connection = _Connection(functools.partial(_subscriber.Subscriber, address, **kwargs))

    async def __aenter__(self) -> "Subscriber":
        await _run(self._connection.get)
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections that are not in use."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"refit.aio.Subscriber({self.address!r})"

    async def pull(self, version: Union[int, str] = "latest", **kwargs: Any) -> _subscriber.PulledVersion:
        return await _run(lambda: self._connection.get().pull(version, **kwargs))

    async def watch(
        self, after: Optional[int] = None, trainer_epoch: Optional[int] = None
    ) -> AsyncIterator[_version.VersionInfo]:
        versions = await _run(lambda: self._connection.get().watch(after, trainer_epoch))
        while True:
            yield await _run(next, versions)

    async def follow(self, install: Callable[[_subscriber.PulledVersion], Any], **options: Any) -> None:
        """As refit.Subscriber.follow(). `install` runs in the event loop; it may be a coroutine function."""
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
                installing.close()  # the loop may be closed, and never have started it
                raise

        await _run(lambda: self._connection.get().follow(install_in_loop, **options))


__all__ = ["Publisher", "Subscriber", "Version"]
