"""What a tensor costs whatever its bytes: very many small ones against one of the same size."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack

from refit import Service, Setup, Trainer, Worker, start_trainer
from results import Check, Row, Section
from rounds import Transfer, interleave, median

TITLE = "Small tensors: push, commit and pull"
TENSOR_BYTES = 1024


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    count = 1000 if setup.smoke else 100_000
    versions = itertools.count(1)
    pushes: dict[str, list[float]] = {}
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "4GiB", "--retain", "1"))
        worker = stack.enter_context(Worker(setup, service))

        def timed(name: str, trainer: Trainer) -> Transfer:
            pushes[name] = []

            def transfer() -> float:
                version = next(versions)
                begin = time.perf_counter()
                trainer.push(version)
                pushes[name].append(time.perf_counter() - begin)
                worker.pull(version)
                return time.perf_counter() - begin

            return transfer

        contenders = {}
        for tensors, size in ((count, TENSOR_BYTES), (1, count * TENSOR_BYTES)):
            trainer = start_trainer(
                stack, setup, service, "--tensors", str(tensors), "--tensor-bytes", str(size)
            )
            name = f"{tensors:,} of {size:,} B"
            contenders[name] = timed(name, trainer)
        seconds = interleave(contenders, setup.rounds)
    many, one = contenders
    for name, samples in seconds.items():
        push = median(pushes[name][1:])
        detail = f"push {push:.3f} s, pull {median(samples) - push:.3f} s"
        section.rows.append(Row(name, median(samples), "s", detail, own=True, samples=samples))
    ratio = median(seconds[many]) / median(seconds[one])
    section.rows[0].checks.append(Check("the one's time", ratio, "<=", 3.0))
