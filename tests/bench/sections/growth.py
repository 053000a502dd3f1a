"""More and more of the model through the same service: time grows with the bytes, and no faster."""

from __future__ import annotations

import itertools
from dataclasses import replace

import streaming
from refit import Service, Setup
from results import Check, Row, Section, format_bytes
from rounds import interleave, median

TITLE = "Growth: time a byte as the version grows, pushed and pulled at once"
LAYERS = (1, 2, 4, 8, 16, 30)


def measure(setup: Setup, section: Section) -> None:
    section.unit = "ns a byte"
    sizes: dict[int, int] = {}
    versions = itertools.count(1)
    # Its own numbers of layers, up to what the caller allows.
    layers = [count for count in LAYERS if not setup.layers or count <= setup.layers][: 2 if setup.smoke else None]
    plain = replace(setup, layers=None)
    with Service(setup, *streaming.OPTIONS) as service:

        def stream(count: int) -> float:
            streamed = streaming.stream(setup, service, next(versions), plain.synthetic(count), [])
            sizes[count] = streamed.bytes
            return streamed.seconds

        seconds = interleave({count: lambda count=count: stream(count) for count in layers}, setup.rounds)
    costs = {count: median(samples) / sizes[count] * 1e9 for count, samples in seconds.items()}
    for count, cost in costs.items():
        detail = f"{median(seconds[count]):.2f} s for {format_bytes(sizes[count])}"
        name = f"{count} layer{'s' if count > 1 else ''}"
        section.rows.append(Row(name, cost, "ns a byte", detail, True, samples=seconds[count]))
    # That of a larger version against that of a smaller one: falling is no harm.
    growth = max(after / before for before, after in itertools.combinations(costs.values(), 2))
    section.rows[-1].checks.append(Check("a smaller version's, at worst", growth, "<=", 1.3))
