"""What a trainer asks of a vLLM server besides loading weights: to pause, and to forget what the old weights gave.

vLLM's VLLMWeightSyncClient has no calls for it. What is used here: methods of the client of these names; the routes of
a client with a base_url; the actors of one with handles.
"""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Optional

from refit.errors import FailedPrecondition, InvalidArgument

_log = logging.getLogger("vllm.refit")

PAUSE_MODES = ("", "keep", "wait", "abort")

# vLLM's own names, as routes and as methods.
_CACHES: Dict[str, Dict[str, Any]] = {
    "reset_prefix_cache": {"reset_running_requests": True},  # those begin anew: their blocks have old values too
    "reset_mm_cache": {},
    "reset_encoder_cache": {},
}


class Control:
    """Of the server, or the servers, that a client of vLLM's weight transfer speaks to."""

    def __init__(self, client: Any, *, timeout: float = 60.0):
        self._client = client
        self._timeout = timeout

    @contextmanager
    def paused(self, mode: str) -> Iterator[None]:
        """Around an update: no request runs meanwhile. Resumes also when the block fails.

        Args:
            mode: vLLM's "keep" (requests stand still and go on), "wait" (for them to end) or "abort"; "": no pause.
        Raises:
            InvalidArgument: for another mode.
            FailedPrecondition: the server, or the client, cannot.
        """
        if mode not in PAUSE_MODES:
            raise InvalidArgument(f"pause {mode!r}: expected one of {', '.join(map(repr, PAUSE_MODES))}")
        if not mode:
            yield
            return
        self._call("pause", "pause_generation", {"mode": mode})
        try:
            yield
        finally:
            self._call("resume", "resume_generation", {})

    def reset_caches(self) -> None:
        """Prefix, multimodal and encoder caches: values that the old weights gave. A cache that the server does not
        have is passed over. A client that cannot reach the server is a warning in the log."""
        for name, arguments in _CACHES.items():
            try:
                self._call(name, name, arguments)
            except FailedPrecondition as error:
                _log.warning("refit: %s; what is cached is of the old weights", error)

    def _call(self, route: str, method: str, arguments: Dict[str, Any]) -> None:
        call = self._way(route, method)
        if call is None:
            raise FailedPrecondition(
                f"{type(self._client).__name__} cannot call {method}: it has no such method, no base_url and no handles"
            )
        call(arguments)

    def _way(self, route: str, method: str) -> Optional[Callable[[Dict[str, Any]], Any]]:
        own = getattr(self._client, method, None)
        if callable(own):
            return lambda arguments: own(**arguments)
        base_url = getattr(self._client, "base_url", None)
        if isinstance(base_url, str):
            return lambda arguments: self._post(f"{base_url.rstrip('/')}/{route}", arguments)
        handles = getattr(self._client, "handles", None)
        if handles:
            return lambda arguments: _call_actors(handles, method, arguments)
        return None

    def _post(self, url: str, arguments: Dict[str, Any]) -> None:
        words = {name: json.dumps(value).strip('"') for name, value in arguments.items()}
        query = "&".join(f"{name}={value}" for name, value in words.items())
        request = urllib.request.Request(f"{url}?{query}" if query else url, data=b"", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout):
                pass
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise FailedPrecondition(
                    f"POST {url}: {error.code} {error.read()[:500].decode(errors='replace')}"
                ) from None
            _log.debug("refit: the server has no %s", url)
        except OSError as error:
            raise FailedPrecondition(f"POST {url}: {error}") from None


def _call_actors(handles: Any, method: str, arguments: Dict[str, Any]) -> None:
    import ray

    calls = [getattr(handle, method, None) for handle in handles]
    if any(call is None for call in calls):
        raise FailedPrecondition(f"the actors have no method {method}")
    ray.get([call.remote(**arguments) for call in calls if call is not None])
