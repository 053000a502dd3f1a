"""Relays: what crosses the link above one, what a chain of them costs, and what a tree gives to a fleet."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass

from paced_proxy import PacedProxy
from processes import run
from refit import Service, Setup, Trainer, Worker, hf_bytes, start_trainer
from results import Check, Row, Section, format_bytes
from rounds import interleave, median

TITLE = "Relays: a layer's tensors without its experts (the chain: with the down projections), links paced by our proxy"
BELOW = (1, 4, 16)
CHAIN = 3
CHAIN_RATE = 200e6  # bytes a second of each link
CHAIN_TIME = 1.15  # of one hop's
RELAYS, WORKERS = 4, 16
TREE_RATE = 25e6
TREE_TIME = 1.2  # of one worker's

# Whole tensors each time, over connections, and no experts: many processes keep a copy each.
SERVICE = ("--memory", "4GiB", "--no-deltas")
RELAY = ("--upstream-transport", "tcp", *SERVICE)
EXPERTS = r".*\.moe\.experts\."
# A chain has few processes; a larger version shows what it costs beside what each relay adds once.
GATE_UP = r".*\.gate_and_up_projs"


@dataclass(frozen=True)
class At:
    """An address, where a program wants a service."""

    address: str


class Fleet:
    """A root with a trainer; the numbers of its versions."""

    def __init__(self, stack: ExitStack, setup: Setup, excluded: str = EXPERTS) -> None:
        self._stack, self._setup = stack, setup
        self.root = stack.enter_context(Service(setup, *SERVICE))
        self._trainer: Trainer = start_trainer(stack, setup, self.root, *setup.synthetic(1, excluded))
        self._numbers = itertools.count(1)

    def relay(self, above: str) -> Service:
        return self._stack.enter_context(Service(self._setup, "--upstream", above, *RELAY))

    def link(self, to: str, rate: float) -> str:
        return self._stack.enter_context(PacedProxy(to, rate)).address

    def worker(self, address: str) -> Worker:
        return self._stack.enter_context(Worker(self._setup, At(address)))

    def refit(self, workers: list[Worker]) -> float:
        """Seconds from the begin of a push until all of these workers have the version."""
        version = next(self._numbers)
        for worker in workers:
            worker.tell(version)
        begin = time.perf_counter()
        self._trainer.push(version)
        for worker in workers:
            worker.hear()
        return time.perf_counter() - begin

    def sent_to_relays(self) -> int:
        """Payload that the root has sent to its relays."""
        text = run("refit status", [self._setup.binaries / "refit", "status", "-s", self.root.address, "--json"])
        workers = json.loads(text)["workers"]
        return sum(int(each["total_sent_bytes"]) for each in workers if "relay" in each and not each["via"])


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    add_bytes_from_above(setup, section)
    add_chain(setup, section)
    add_tree(setup, section)


def add_bytes_from_above(setup: Setup, section: Section) -> None:
    with ExitStack() as stack:
        fleet = Fleet(stack, setup)
        relay = fleet.relay(fleet.root.address)
        workers = [fleet.worker(relay.address) for _ in range(max(BELOW))]
        for count in BELOW:
            before = fleet.sent_to_relays()
            seconds = fleet.refit(workers[:count])
            sent = fleet.sent_to_relays() - before
            version = hf_bytes(setup, fleet.root)
            detail = f"{format_bytes(sent)} from above for a version of {format_bytes(version)}"
            checks = [Check("the version's bytes", sent / version, "<=", 1.01)]
            section.rows.append(Row(f"a relay, {count} below", seconds, "s", detail, own=True, checks=checks))


def add_chain(setup: Setup, section: Section) -> None:
    with ExitStack() as stack:
        fleet = Fleet(stack, setup, GATE_UP)
        direct = fleet.worker(fleet.link(fleet.root.address, CHAIN_RATE))
        address = fleet.root.address
        for _ in range(CHAIN):
            address = fleet.relay(fleet.link(address, CHAIN_RATE)).address
        last = fleet.worker(fleet.link(address, CHAIN_RATE))
        names = ("one hop", f"chain of {CHAIN} relays")
        seconds = interleave(
            {names[0]: lambda: fleet.refit([direct]), names[1]: lambda: fleet.refit([last])}, setup.rounds
        )
        add_compared(section, names, seconds, f"links of {format_bytes(CHAIN_RATE)}/s", CHAIN_TIME)


def add_tree(setup: Setup, section: Section) -> None:
    with ExitStack() as stack:
        fleet = Fleet(stack, setup)
        alone = fleet.worker(fleet.link(fleet.root.address, TREE_RATE))
        relays = [fleet.relay(fleet.link(fleet.root.address, TREE_RATE)) for _ in range(RELAYS)]
        below = [fleet.worker(fleet.link(relays[i % RELAYS].address, TREE_RATE)) for i in range(WORKERS)]
        names = ("one worker", f"{WORKERS} workers on {RELAYS} relays")
        seconds = interleave(
            {names[0]: lambda: fleet.refit([alone]), names[1]: lambda: fleet.refit(below)}, setup.rounds
        )
        add_compared(section, names, seconds, f"links of {format_bytes(TREE_RATE)}/s", TREE_TIME)


def add_compared(section: Section, names: tuple[str, str], seconds: dict, detail: str, limit: float) -> None:
    first, second = (median(seconds[name]) for name in names)
    section.rows.append(Row(names[0], first, "s", detail, own=True, samples=seconds[names[0]]))
    checks = [Check(names[0], second / first, "<=", limit)]
    section.rows.append(Row(names[1], second, "s", detail, own=True, checks=checks, samples=seconds[names[1]]))
