"""A sharded trainer of eight ranks against one that has gathered everything: push time, and the service's memory."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack

from refit import Service, Setup, Trainer, hf_bytes
from results import Check, Row, Section
from rounds import interleave, median

TITLE = "Ranks: push of a sharded trainer, ep 4 x ep_shard 2, fsdp 8"
RANKS = 8
MESH = ("--world", str(RANKS), "--ep-size", "4", "--ep-shard-size", "2", "--fsdp-size", str(RANKS))


def start_trainers(stack: ExitStack, setup: Setup, service: Service, ranks: int) -> list[Trainer]:
    trainers = []
    for rank in range(ranks):
        mesh = (*MESH, "--rank", str(rank)) if ranks > 1 else ()
        trainers.append(stack.enter_context(Trainer(setup, service, *setup.synthetic(2), *mesh)))
    for trainer in trainers:
        trainer.wait_for_values()
    return trainers


def push(trainers: list[Trainer], version: int) -> float:
    begin = time.perf_counter()
    for trainer in trainers:
        trainer.tell(version)
    for trainer in trainers:
        trainer.hear()
    return time.perf_counter() - begin


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    peak, total = measure_peak(setup)
    seconds = measure_time(setup)
    medians = {ranks: median(samples) for ranks, samples in seconds.items()}
    for ranks, samples in seconds.items():
        detail = f"{total / medians[ranks] / 1e9:.2f} GB/s"
        section.rows.append(
            Row(f"{ranks} rank{'s' if ranks > 1 else ''}", medians[ranks], "s", detail, True, samples=samples)
        )
    section.rows[-1].checks.append(Check("as fast as one rank", medians[1] / medians[RANKS], ">=", 1.0))
    beside = (peak - total) / 2**20
    section.rows.append(
        Row(
            "service's memory beside the version",
            beside,
            "MiB",
            f"peak {peak / 2**30:.2f} GiB, {RANKS} ranks",
            True,
            [Check("beside", beside, "<=", 256, "MiB")],
        )
    )


def measure_peak(setup: Setup) -> tuple[int, int]:
    """Of a fresh service that takes one version; and the version's bytes."""
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "12GiB", "--retain", "1"))
        push(start_trainers(stack, setup, service, RANKS), 1)
        return service.peak_bytes(), hf_bytes(setup, service)


def measure_time(setup: Setup) -> dict[int, list[float]]:
    versions = itertools.count(1)
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "12GiB", "--retain", "1"))
        fleets = {ranks: start_trainers(stack, setup, service, ranks) for ranks in (1, RANKS)}
        return interleave(
            {ranks: lambda fleet=fleet: push(fleet, next(versions)) for ranks, fleet in fleets.items()}, setup.rounds
        )
