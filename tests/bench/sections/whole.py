"""The whole model, end to end: pushed, converted, pulled, and checked bit for bit against what LibTorch makes of it."""

from __future__ import annotations

from dataclasses import replace

import streaming
from refit import MODEL, Service, Setup
from results import Check, Row, Section, format_bytes

TITLE = "Whole model: pushed and pulled at once, every tensor verified, one run"


def measure(setup: Setup, section: Section) -> None:
    what = ["--synthetic", MODEL]
    if setup.smoke or setup.layers:
        # More than the service has memory for, all the same.
        what = replace(setup, smoke=False).synthetic(1)
    with Service(setup, *streaming.OPTIONS) as service:
        streamed = streaming.stream(setup, service, 1, what, streaming.verified(what))
        peak = service.peak_bytes() / 2**30
    rate = streamed.bytes / streamed.seconds / 1e9
    section.rows.append(
        Row(f"{format_bytes(streamed.bytes)}, verified", rate, "GB/s", f"{streamed.seconds:.1f} s", own=True)
    )
    section.rows.append(
        Row("service's peak memory", peak, "GiB", own=True, checks=[Check("resident", peak, "<=", 2.0, "GiB")])
    )
