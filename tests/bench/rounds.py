"""Runs contenders in rounds, one after another, so that a slow phase of the machine affects all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from processes import NotMeasured, ProgramFailed

# Does its work once and tells the seconds.
Transfer = Callable[[], float]


def interleave(
    contenders: Mapping[str, Transfer], rounds: int, spare: frozenset[str] = frozenset(), warm_up: bool = True
) -> dict:
    """Seconds of each round by contender; a first one, which warms up, is dropped.

    Of those in `spare` one may fail: it then has the exception instead of seconds.
    """
    results: dict[str, list[float] | Exception] = {name: [] for name in contenders}
    for number in range(rounds + warm_up):
        for name, transfer in contenders.items():
            seconds = results[name]
            if isinstance(seconds, Exception):
                continue
            try:
                taken = transfer()
            except (NotMeasured, ProgramFailed) as failure:
                if name not in spare:
                    raise
                results[name] = failure
                continue
            if number >= warm_up:
                seconds.append(taken)
    return results


def median(values: list[float]) -> float:
    return statistics.median(values)
