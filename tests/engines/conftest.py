"""What the engines' tests share, and the table at their end."""

from __future__ import annotations

import pathlib
import sys
from typing import Any, Dict, Iterator, List, Tuple

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> pathlib.Path:
    made: pathlib.Path = tmp_path_factory.mktemp("engine")
    return made


@pytest.fixture(scope="module")
def service(folder: pathlib.Path) -> Iterator[Any]:
    from vllm_server import Service

    made = Service(folder)
    yield made
    made.end()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A row a test: what was shown, how it ended, and how long it took with its engine's start."""
    rows: Dict[str, Tuple[str, float]] = {}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.stats.get(outcome, []):
            before = rows.get(report.nodeid, ("", 0.0))[1]
            rows[report.nodeid] = (outcome, before + report.duration)
    for report in terminalreporter.stats.get("", []):  # starts and ends of what passed
        if report.nodeid in rows:
            outcome, seconds = rows[report.nodeid]
            rows[report.nodeid] = (outcome, seconds + report.duration)
    if rows:
        terminalreporter.section("engines")
        for line in _lines(rows):
            terminalreporter.line(line)


def _lines(rows: Dict[str, Tuple[str, float]]) -> List[str]:
    named = {nodeid.split("/")[-1].replace(".py::", ": ").replace("test_", ""): row for nodeid, row in rows.items()}
    width = max(map(len, named))
    return [f"{name:<{width}}  {outcome:<7} {seconds:6.1f} s" for name, (outcome, seconds) in named.items()]
