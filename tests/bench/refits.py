"""Trainers that push to one service in turn, and a worker that pulls what they pushed."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack

from refit import Service, Setup, Trainer, Worker, start_trainer
from results import Check, Row, Section
from rounds import Transfer, interleave, median


def compare_refits(
    setup: Setup, section: Section, options: list[str], trainers: dict[str, list[str]], against: str, most: float
) -> None:
    """A row for each of two trainers: push, commit and pull together. `options` are the service's, `trainers` has the
    options of each. The first may take `most` times as long as the second; `against` is how its check says that."""
    versions = itertools.count(1)
    pushes: dict[str, list[float]] = {}
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, *options))
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

        contenders = {name: timed(name, start_trainer(stack, setup, service, *argv)) for name, argv in trainers.items()}
        seconds = interleave(contenders, setup.rounds)
    for name, samples in seconds.items():
        push = median(pushes[name][1:])
        detail = f"push {push:.3f} s, pull {median(samples) - push:.3f} s"
        section.rows.append(Row(name, median(samples), "s", detail, own=True, samples=samples))
    first, second = (median(seconds[name]) for name in trainers)
    section.rows[-2].checks.append(Check(against, first / second, "<=", most))
