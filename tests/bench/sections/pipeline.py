"""Push, conversion and pull of one version at the same time, against each stage alone."""

from __future__ import annotations

import itertools
import os
import time
from contextlib import ExitStack

from processes import NotMeasured
from refit import TRANSPORTS, Service, Setup, Trainer, Worker, start_trainer
from results import Check, Row, Section
from rounds import Transfer, interleave, median

TITLE = "Pipeline: push, convert and pull at once, against each stage alone"


class Stages:
    """What is timed over one transport; versions are numbered across all transports."""

    def __init__(self, service: Service, trainer: Trainer, worker: Worker, versions: itertools.count) -> None:
        self._programs = (service, trainer, worker)
        self._trainer = trainer
        self._worker = worker
        self._versions = versions
        self._pushed = 0
        # CPU seconds of all programs, by stage; a value a round.
        self.cpu: dict[str, list[float]] = {}

    def push(self) -> float:
        self._pushed = next(self._versions)
        return self._trainer.push(self._pushed)

    def pull(self) -> float:
        return self._worker.pull(self._pushed)

    def whole(self) -> float:
        """From the trainer's start to the worker's end; the worker waits for the version from before."""
        version = next(self._versions)
        self._worker.tell(version)
        begin = time.perf_counter()
        self._trainer.push(version)
        self._worker.hear()
        return time.perf_counter() - begin

    def named(self, transport: str) -> dict[str, Transfer]:
        stages = {"push": self.push, "pull": self.pull, "whole": self.whole}
        return {f"{transport}, {name}": self._with_cpu(name, stage) for name, stage in stages.items()}

    def _with_cpu(self, name: str, stage: Transfer) -> Transfer:
        samples = self.cpu.setdefault(name, [])

        def transfer() -> float:
            before = sum(program.cpu_seconds() for program in self._programs)
            seconds = stage()
            samples.append(sum(program.cpu_seconds() for program in self._programs) - before)
            return seconds

        return transfer


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    versions = itertools.count(1)
    contenders: dict[str, Transfer] = {}
    stages: dict[str, Stages] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "16GiB", "--retain", "1"))
        for transport in TRANSPORTS:
            try:
                # First: it says at once whether there is such a transport.
                worker = stack.enter_context(Worker(setup, service, transport=transport))
                trainer = start_trainer(stack, setup, service, *setup.synthetic(1), transport=transport)
            except NotMeasured as reason:
                missing[transport] = str(reason)
                continue
            stages[transport] = Stages(service, trainer, worker, versions)
            contenders |= stages[transport].named(transport)
        seconds = interleave(contenders, setup.rounds)
    for transport in TRANSPORTS:
        if transport in missing:
            section.rows.append(Row(transport, not_measured=missing[transport]))
        else:
            # The first round warmed up.
            cpu = {stage: median(samples[1:]) for stage, samples in stages[transport].cpu.items()}
            add_rows(section, transport, seconds, cpu)


def add_rows(section: Section, transport: str, seconds: dict, cpu: dict[str, float]) -> None:
    names = {stage: f"{transport}, {stage}" for stage in ("push", "pull", "whole")}
    medians = {stage: median(seconds[name]) for stage, name in names.items()}
    details = {"push": "no worker", "pull": "of a committed version", "whole": "at once"}
    for stage, name in names.items():
        detail = f"{details[stage]}, {cpu[stage]:.2f} s of CPU"
        section.rows.append(Row(name, medians[stage], "s", detail, own=True, samples=seconds[name]))
    slowest = max(("push", "pull"), key=medians.get)
    checks = section.rows[-1].checks
    checks.append(Check(f"{slowest} alone", medians["whole"] / medians[slowest], "<=", 1.2))
    # Below it no overlap can bring the whole. The kernel counts CPU time in hundredths of a second.
    cores = os.cpu_count() or 1
    if least := (cpu["push"] + cpu["pull"]) / cores:
        checks.append(Check(f"push's and pull's CPU time on {cores} cores", medians["whole"] / least))
    if transport != "tcp" and "tcp, whole" in seconds:
        checks.append(Check("as fast as tcp", median(seconds["tcp, whole"]) / medians["whole"], ">=", 2.0))
