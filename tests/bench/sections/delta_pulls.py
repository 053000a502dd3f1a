"""A version of which 1 % has changed, pulled by a worker that holds the one before, and by one that does not."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass

from paced_proxy import PacedProxy
from refit import InPlaceWorker, Service, Setup, Worker, start_trainer
from results import Check, Row, Section, format_bytes
from rounds import median

CHANGE = 0.01
WIRE = 150  # times less than dense
LOOPBACK = 0.6  # of the dense pull's time
PUSH = 1.25  # of a push while a worker pulls whole tensors
PAUSE = 0.1  # seconds that an install in place takes, for 1.63 GB


@dataclass(frozen=True)
class Link:
    name: str
    rate: float  # bytes a second
    faster: float  # than dense, at least
    rounds: int  # at most
    # On a slow link a part of the layer must do.
    filter: str = ""


LINKS = (
    Link("125 MB/s", 125e6, 15, 3),
    Link("12.5 MB/s", 12.5e6, 60, 1, r"layers\.0\.experts\.down_proj"),
)


class Versions:
    """Two trainers push in turns: step 0, step 1, step 0, ... So each version is one step from the one before."""

    def __init__(self, stack: ExitStack, setup: Setup, service: Service) -> None:
        steps = [["--step", str(step), "--change", str(CHANGE)] for step in (0, 1)]
        self._trainers = [start_trainer(stack, setup, service, *setup.synthetic(1), *step) for step in steps]
        self._numbers = itertools.count(1)

    def push(self, to: Worker | None = None) -> tuple[int, float]:
        """The version's number, and the seconds from its opening to its commit. `to` pulls it meanwhile."""
        version = next(self._numbers)
        if to is not None:
            to.tell(version)
        seconds = self._trainers[version % 2].push(version)
        if to is not None:
            to.hear()
        return version, seconds


class Samples(dict):
    """Values of each round by what they are of. The first round warms up, and is dropped."""

    def add(self, name: str, value: float) -> None:
        self.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return median(self[name][1:])

    def row(self, name: str, detail: str, checks: list[Check] | None = None) -> Row:
        return Row(name, self.median(name), "s", detail, own=True, checks=checks or [], samples=self[name][1:])


def measure(setup: Setup, section: Section) -> None:
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "16GiB"))
        versions = Versions(stack, setup, service)
        add_loopback(setup, section, service, versions)
        add_in_place(setup, section, service, versions)
        for link in LINKS:
            add_link(setup, section, service, versions, link)


def add_loopback(setup: Setup, section: Section, service: Service, versions: Versions) -> None:
    samples = Samples()
    with Worker(setup, service) as whole, Worker(setup, service, "--deltas") as deltas:
        deltas.pull(versions.push()[0])
        for _ in range(setup.rounds + 1):
            version, seconds = versions.push(to=whole)
            samples.add("push, whole pulls", seconds)
            seconds, wire = deltas.pull_wire(version)
            samples.add("pull, deltas", seconds)
            version, seconds = versions.push(to=deltas)
            samples.add("push, delta pulls", seconds)
            seconds, dense = whole.pull_wire(version)
            samples.add("pull, whole", seconds)
        peaks = {"service": service.peak_bytes(), "worker with deltas": deltas.peak_bytes()}
        peaks["worker without"] = whole.peak_bytes()
    of_pull = Check("pull, whole", samples.median("pull, deltas") / samples.median("pull, whole"), "<=", LOOPBACK)
    of_push = Check(
        "push, whole pulls", samples.median("push, delta pulls") / samples.median("push, whole pulls"), "<=", PUSH
    )
    less = Check("less than whole", dense / wire, ">=", WIRE)
    section.rows += [
        samples.row("pull, whole", f"{format_bytes(dense)}, loopback"),
        samples.row("pull, deltas", f"{format_bytes(wire)}, loopback", [of_pull, less]),
        samples.row("push, whole pulls", "a worker pulls meanwhile"),
        samples.row("push, delta pulls", "a worker pulls meanwhile", [of_push]),
    ]
    section.rows += [Row(f"peak memory, {name}", peak / 1e9, "GB", own=True) for name, peak in peaks.items()]


def add_in_place(setup: Setup, section: Section, service: Service, versions: Versions) -> None:
    samples = Samples()
    with InPlaceWorker(setup, service) as worker:
        worker.refit(versions.push()[0])
        for _ in range(setup.rounds + 1):
            samples.add("install in place", worker.refit(versions.push()[0]))
    pause = Check("pause", samples.median("install in place"), "<=", PAUSE, "s")
    section.rows.append(samples.row("install in place", "of what was staged: the worker is torn meanwhile", [pause]))


def add_link(setup: Setup, section: Section, service: Service, versions: Versions, link: Link) -> None:
    samples = Samples()
    options = ["--filter", link.filter] if link.filter and not setup.smoke else []
    with (
        PacedProxy(service.address, link.rate) as proxy,
        Worker(setup, proxy, *options) as whole,
        Worker(setup, proxy, *options, "--deltas") as deltas,
    ):
        deltas.pull(versions.push()[0])
        for _ in range(min(setup.rounds, link.rounds) + 1):
            version, _ = versions.push()
            samples.add("deltas", deltas.pull(version))
        for _ in range(min(setup.rounds, link.rounds)):
            seconds, dense = whole.pull_wire(version)
            samples.add("whole", seconds)
    samples["whole"] = samples["whole"][:1] + samples["whole"]  # it needs no warming up
    faster = Check("faster than whole", samples.median("whole") / samples.median("deltas"), ">=", link.faster)
    for name, checks in (("whole", []), ("deltas", [faster])):
        row = samples.row(name, f"{format_bytes(dense)} of tensors", checks)
        row.contender = f"pull at {link.name}, {name}"
        section.rows.append(row)
