"""The Python package's worker beside the C++ one, and beside what one writes first in Python."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import baselines
from processes import NotMeasured, Program
from refit import REPOSITORY, Service, Setup, Worker, start_trainer
from results import Check, Row, Section, format_bytes
from rounds import Transfer, interleave, median

TITLE = "Python: one worker pulls a committed version over TCP, verified"
NATIVE = "refit, C++ worker"
UNTUNED = "refit, C++ worker, allocator as it is"
PLAIN = "plain gRPC, Python"
WORKER = REPOSITORY / "tests" / "bench" / "python" / "worker.py"
OURS = {
    "refit, Python worker": [],
    "refit, Python worker, into its own tensors": ["--into", "out"],
    "refit, Python worker, tune_allocator()": ["--tuned"],
}
PULLS_THAT_WARM = 2


class PythonWorker(Program):
    """tests/bench/python/worker.py, with the package as it was built."""

    def __init__(self, setup: Setup, service: Service, *options: str) -> None:
        package = setup.binaries.parent / "python"
        if not any(package.glob("refit/_refit*.so")):
            raise NotMeasured("the Python package is not built (-DREFIT_PYTHON=ON)")
        argv = [sys.executable, WORKER, "--server", service.address, *options]
        super().__init__("Python worker", argv, {"PYTHONPATH": str(package)})
        self.wait_ready(timeout=60)

    def pull(self, version: int) -> float:
        return float(self.ask(version)[2])


def measure(setup: Setup, section: Section) -> None:
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "8GiB", "--retain", "1"))
        with ExitStack() as pushing:
            start_trainer(pushing, setup, service, *setup.synthetic(1)).push(1)
        worker = stack.enter_context(Worker(setup, service))
        total = worker.pull_bytes(1)
        untuned = stack.enter_context(Worker(setup, service, "--untuned"))
        contenders: dict[str, Transfer] = {NATIVE: lambda: worker.pull(1), UNTUNED: lambda: untuned.pull(1)}
        for name, options in OURS.items():
            python_worker = stack.enter_context(PythonWorker(setup, service, *options))
            for _ in range(PULLS_THAT_WARM):
                python_worker.pull(1)
            contenders[name] = lambda python_worker=python_worker: python_worker.pull(1)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            contenders[PLAIN] = baselines.ALL[PLAIN](stack, setup, scratch, total)
        except NotMeasured as reason:
            section.rows.append(Row(PLAIN, not_measured=str(reason)))
        results = interleave(contenders, setup.rounds, frozenset([PLAIN]), warm_up=not setup.smoke)
    add_rows(section, results, total)


def add_rows(section: Section, results: dict, total: int) -> None:
    rates = {
        name: [total / value / 1e9 for value in seconds]
        for name, seconds in results.items()
        if isinstance(seconds, list)
    }
    for name, samples in rates.items():
        row = Row(name, median(samples), "GB/s", f"{median(results[name]):.3f} s", name != PLAIN, [], samples)
        if name == UNTUNED or name in OURS:
            row.checks.append(Check(NATIVE, row.value / median(rates[NATIVE]), ">=", 0.9))
            if name in OURS and PLAIN in rates:
                row.checks.append(Check(PLAIN, row.value / median(rates[PLAIN]), ">=", 2.0))
        section.rows.append(row)
    section.rows[0].detail += f" for {format_bytes(total)}"
    for name, failure in results.items():
        if isinstance(failure, Exception):
            section.rows.append(Row(name, not_measured=str(failure)))
