"""More and more workers that pull one version at the same time: what each costs the service."""

from __future__ import annotations

import time
from contextlib import ExitStack

from refit import Service, Setup, Worker, converting_seconds, start_trainer
from results import Check, Row, Section, format_bytes
from rounds import interleave, median

TITLE = "Fan-out: workers that pull one committed version at the same time"
WORKERS = (1, 2, 4, 8)


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "4GiB", "--retain", "1"))
        before = service.cpu_seconds()
        with ExitStack() as pushing:
            # Half a layer: each of the workers keeps a copy of its own.
            pushed = start_trainer(pushing, setup, service, *setup.synthetic(1, r".*down_projs")).push(1)
        push_cpu = service.cpu_seconds() - before
        converting = converting_seconds(setup, service)
        fleet = [stack.enter_context(Worker(setup, service)) for _ in range(max(WORKERS))]
        sizes = {worker.pull_bytes(1) for worker in fleet}
        total = sizes.pop()
        cpu: dict[int, list[float]] = {count: [] for count in WORKERS}

        def pull(count: int) -> float:
            cpu_before = service.cpu_seconds()
            begin = time.perf_counter()
            for worker in fleet[:count]:
                worker.tell(1)
            for worker in fleet[:count]:
                worker.hear()
            seconds = time.perf_counter() - begin
            cpu[count].append((service.cpu_seconds() - cpu_before) / count)
            return seconds

        seconds = interleave({count: lambda count=count: pull(count) for count in WORKERS}, setup.rounds)
        again = converting_seconds(setup, service) - converting
    detail = f"service CPU {push_cpu:.2f} s, of it {converting:.2f} s to convert and digest"
    section.rows.append(Row(f"push of {format_bytes(total)}", pushed, "s", detail, True))
    section.rows[-1].checks.append(Check("converting again, for all pulls together", again, "<=", 0, "s"))
    for count, samples in seconds.items():
        # The first is the warm-up's.
        each = median(cpu[count][1:])
        rate = count * total / median(samples) / 1e9
        detail = f"{rate:.2f} GB/s in all, service CPU {each:.2f} s a worker"
        section.rows.append(
            Row(f"{count} worker{'s' if count > 1 else ''}", median(samples), "s", detail, True, samples=samples)
        )
