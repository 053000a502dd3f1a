"""F32 masters that are pushed as BF16, against a push of BF16 tensors: what the cast before the wire costs and saves."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

from processes import NotMeasured
from refit import TRANSPORTS, Service, Setup, newest_version, start_trainer
from results import Check, Row, Section, format_bytes
from rounds import interleave, median

TITLE = "Cast: F32 masters pushed as BF16, against a push of BF16"
BF16 = "BF16 as it is"
MASTERS = "F32 as BF16"
OPTIONS = {BF16: (), MASTERS: ("--synthetic-dtype", "F32", "--dtype", "BF16")}


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    for transport in TRANSPORTS:
        try:
            measure_transport(setup, section, transport)
        except NotMeasured as reason:
            section.rows.append(Row(transport, not_measured=str(reason)))


def measure_transport(setup: Setup, section: Section, transport: str) -> None:
    versions = itertools.count(1)
    sent: dict[str, int] = {}
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "8GiB", "--retain", "1"))
        trainers = {
            name: start_trainer(stack, setup, service, *setup.synthetic(1), *options, transport=transport)
            for name, options in OPTIONS.items()
        }
        for name, trainer in trainers.items():
            trainer.push(next(versions))
            sent[name] = int(newest_version(setup, service)["received_bytes"])
        seconds = interleave(
            {name: lambda trainer=trainer: trainer.push(next(versions)) for name, trainer in trainers.items()},
            setup.rounds,
        )
    medians = {name: median(samples) for name, samples in seconds.items()}
    for name, samples in seconds.items():
        detail = f"{format_bytes(sent[name])} sent"
        section.rows.append(Row(f"{transport}, {name}", medians[name], "s", detail, True, samples=samples))
    section.rows[-1].checks += [
        Check(f"bytes of {BF16}", sent[MASTERS] / sent[BF16], "<=", 1.0),
        Check(f"time of {BF16}", medians[MASTERS] / medians[BF16], "<=", 1.25),
    ]
