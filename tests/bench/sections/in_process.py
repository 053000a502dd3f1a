"""A trainer that embeds the service: its threads convert large tensors together, against one of them alone."""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack

from processes import Program
from refit import Service, Setup, start_trainer
from results import Check, Row, Section
from rounds import Transfer, interleave, median

TITLE = "In process: a trainer that embeds the service publishes a version"
# As a push over the wire has it.
CHUNK_BYTES = 2 << 20


class Embedded(Program):
    def __init__(self, setup: Setup, threads: int, *options: str) -> None:
        """The calling thread is one of them."""
        helpers = max(1, threads - 1)
        alone = ["--step", str(CHUNK_BYTES)] if threads == 1 else []
        argv = [setup.binaries / "bench-embedded", "--convert-threads", str(helpers), *alone, *options]
        super().__init__("bench-embedded", argv)
        self.bytes = int(self.wait_ready()[0])

    def publish(self, version: int) -> float:
        return float(self.ask(version)[1])


def measure(setup: Setup, section: Section) -> None:
    section.unit = "GB/s"
    model = setup.synthetic(1)
    with ExitStack() as stack:
        contenders: dict[str, Transfer] = {}
        total = 0
        for threads in sorted({1, 2, os.cpu_count() or 2}):
            embedded = stack.enter_context(Embedded(setup, threads, *model))
            total = embedded.bytes
            name = "one thread" if threads == 1 else f"{threads} threads"
            contenders[name] = publisher(embedded.publish)
        service = stack.enter_context(Service(setup, "--memory", "16GiB", "--retain", "1"))
        contenders["pushed, tcp"] = publisher(start_trainer(stack, setup, service, *model).push)
        seconds = interleave(contenders, setup.rounds)
    for name, samples in seconds.items():
        rates = [total / value / 1e9 for value in samples]
        row = Row(name, median(rates), "GB/s", f"{median(samples):.3f} s", own=True, samples=rates)
        if name != "one thread":
            row.checks.append(Check("one thread", median(seconds["one thread"]) / median(samples)))
        section.rows.append(row)


def publisher(publish) -> Transfer:
    """Twice: the first warms up, as much has passed through the caches since the last round."""
    versions = itertools.count(1)

    def transfer() -> float:
        publish(next(versions))
        return publish(next(versions))

    return transfer
