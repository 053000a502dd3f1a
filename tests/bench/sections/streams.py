"""One version over one connection and over several, where each has a rate and a delay of its own, as links of clouds
have; and over loopback, where several gain nothing."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass

from processes import Program
from refit import Service, Setup, Trainer, Worker, hf_bytes, start_trainer
from results import Check, Row, Section
from rounds import interleave, median

TITLE = "Streams: one version over several connections"
SEVERAL = 4
AUTO = 0
# A pull takes so many times as long on one connection, at least.
CAPPED = 3.6
# Of what the connections may carry together, at least.
FILLED = 0.8


@dataclass(frozen=True)
class Link:
    name: str
    rate: float = 0  # bytes a second, of each connection; 0: loopback itself
    delay_ms: float = 0  # each way
    of_one: float = 0  # target: against one connection
    of_rate: float = 0  # target: against the rates' sum


LINKS = (
    Link("100 MB/s", 100e6, 0, of_one=CAPPED),
    Link("200 MB/s, 50 ms each way", 200e6, 50, of_rate=FILLED),
    Link("loopback"),
)


class LongLink(Program):
    """Connections to a service through a proxy that paces and delays each."""

    def __init__(self, setup: Setup, service: Service, link: Link) -> None:
        argv = ["--target", service.address.rpartition(":")[2], "--rate", link.rate, "--delay-ms", link.delay_ms]
        super().__init__("bench-paced-proxy", [setup.binaries / "bench-paced-proxy", *argv])
        self.address = f"127.0.0.1:{self.wait_ready()[0]}"


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "12GiB", "--retain", "1"))
        versions = itertools.count(1)
        trainer = start_trainer(stack, setup, service, *setup.synthetic(1))
        trainer.push(next(versions))
        total = hf_bytes(setup, service)
        for link in LINKS:
            with ExitStack() as ends:
                way = ends.enter_context(LongLink(setup, service, link)) if link.rate else service
                pulls = {n: ends.enter_context(Worker(setup, way, "--streams", n)) for n in (1, SEVERAL, AUTO)}
                version = next(versions)
                trainer.push(version)
                seconds = interleave({n: lambda w=w: w.pull(version) for n, w in pulls.items()}, setup.rounds)
                add(section, f"pull, {link.name}", link, seconds, total)
            with ExitStack() as ends:
                way = ends.enter_context(LongLink(setup, service, link)) if link.rate else service
                pushes = {n: start_stream_trainer(ends, setup, way, n) for n in (1, SEVERAL)}
                seconds = interleave({n: lambda t=t: t.push(next(versions)) for n, t in pushes.items()}, setup.rounds)
                add(section, f"push, {link.name}", link, seconds, total)


def start_stream_trainer(stack: ExitStack, setup: Setup, way: Service | LongLink, streams: int) -> Trainer:
    return start_trainer(stack, setup, way, *setup.synthetic(1), "--streams", str(streams))


def add(section: Section, what: str, link: Link, seconds: dict[int, list[float]], total: int) -> None:
    one = median(seconds[1])
    for streams, samples in seconds.items():
        value = median(samples)
        name = {1: "one connection", AUTO: "as many as pay"}.get(streams, f"{streams} connections")
        checks = []
        if streams != 1:
            faster = one / value
            targeted = link.of_one and streams == SEVERAL
            checks.append(Check("as fast as one", faster, *((">=", link.of_one) if targeted else ())))
        if link.rate and streams != AUTO:
            filled = total / value / (link.rate * streams)
            targeted = link.of_rate and streams == SEVERAL
            checks.append(Check("the connections' rates", filled, *((">=", link.of_rate) if targeted else ())))
        rate = f"{total / value / 1e6:.0f} MB/s"
        section.rows.append(Row(f"{what}, {name}", value, "s", rate, True, checks, samples))
