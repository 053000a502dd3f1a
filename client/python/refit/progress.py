"""Shows the progress of a push or pull: with tqdm or rich if installed, or by calling the caller's function."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Union

# Called with (bytes done, bytes in all), at most every 0.1 s and at the end.
OnProgress = Callable[[int, int], None]


@contextmanager
def told_to(progress: Union[bool, OnProgress, None], what: str) -> Iterator[Optional[OnProgress]]:
    """The function to call with progress. True: a bar titled `what`, if tqdm or rich is installed."""
    if not progress:
        yield None
    elif callable(progress):
        yield progress
    else:
        with _tqdm_bar(what) or _rich_bar(what) or _nothing() as tell:
            yield tell


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def _tqdm_bar(what: str) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None

    @contextmanager
    def bar() -> Iterator[OnProgress]:
        with tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1000) as shown:

            def tell(done: int, total: int) -> None:
                shown.total = total
                shown.update(done - shown.n)

            yield tell

    return bar()


def _rich_bar(what: str) -> Any:
    try:
        from rich.progress import Progress
    except ImportError:
        return None

    @contextmanager
    def bar() -> Iterator[OnProgress]:
        with Progress() as shown:
            task = shown.add_task(what, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)

    return bar()
