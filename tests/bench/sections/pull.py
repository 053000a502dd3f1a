"""One worker that pulls a committed version, verified, against other ways to bring it the same number of bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import baselines
import certificates
from processes import NotMeasured
from refit import TRANSPORTS, Service, Setup, Worker, start_trainer
from results import Check, Row, Section, format_bytes
from rounds import Transfer, interleave, median

TITLE = "Pull: one worker, one committed version; shm: mapped, all others: copied into its own memory"
RAW = "raw TCP"
SECURED = "refit, tcp, mTLS, verified"
SECURED_BASELINE = "plain gRPC, C++, tuned malloc, mTLS"


def measure(setup: Setup, section: Section) -> None:
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "16GiB", "--retain", "1"))
        with ExitStack() as pushing:
            start_trainer(pushing, setup, service, *setup.synthetic(2)).push(1)
        contenders, missing, total = start_workers(stack, setup, service)
        ours = [*contenders, SECURED]
        # One after the other, each by itself.
        for name, start in {SECURED: start_secured, **baselines.ALL}.items():
            contenders[name] = lambda start=start: transfer_once(start, setup, total)
        # All warm up by themselves; the first round makes the last pages of our programs warm.
        results = interleave(contenders, setup.rounds, frozenset(baselines.ALL), warm_up=not setup.smoke)
    for name, seconds in list(results.items()):
        if isinstance(seconds, Exception):
            missing[name] = str(seconds)
            del results[name]
    add_rows(section, results, missing, ours, total)


def pull_twice(worker: Worker) -> float:
    """The first warms up, as the baselines' first does: much has passed through the caches since the last round."""
    worker.pull(1)
    return worker.pull(1)


def transfer_once(start: Callable[..., Transfer], setup: Setup, total: int) -> float:
    """Of a contender that is started for it and ended after it: all at once would not fit into memory. The first
    transfer warms up."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        transfer = start(stack, setup, Path(directory), total)
        transfer()
        return transfer()


def start_secured(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    """Our own under mutual TLS, with a service and a version of its own."""
    folder = certificates.make(setup.binaries, directory / "tls")
    options = ["--memory", "16GiB", "--retain", "1", *certificates.server_options(folder)]
    service = stack.enter_context(Service(setup, *options, "--roles", str(folder / "roles")))
    with ExitStack() as pushing:
        as_trainer = certificates.client_options(folder, "trainer")
        start_trainer(pushing, setup, service, *setup.synthetic(2), *as_trainer).push(1)
    worker = stack.enter_context(Worker(setup, service, *certificates.client_options(folder, "worker")))
    return lambda: worker.pull(1)


def start_workers(
    stack: ExitStack, setup: Setup, service: Service
) -> tuple[dict[str, Transfer], dict[str, str], int]:
    """Our contenders, those that are not there, and the bytes of the version."""
    contenders: dict[str, Transfer] = {}
    missing: dict[str, str] = {}
    total = 0
    for transport in TRANSPORTS:
        name = f"refit, {transport}, verified"
        try:
            worker = stack.enter_context(Worker(setup, service, transport=transport))
        except NotMeasured as reason:
            missing[name] = str(reason)
            continue
        total = worker.pull_bytes(1)
        contenders[name] = lambda worker=worker: pull_twice(worker)
    return contenders, missing, total


def add_rows(section: Section, results: dict, missing: dict, ours: list[str], total: int) -> None:
    rates = {name: [total / value / 1e9 for value in seconds] for name, seconds in results.items()}
    for name, samples in rates.items():
        row = Row(name, median(samples), "GB/s", f"{median(results[name]):.3f} s", name in ours, [], samples)
        if name in ours:
            row.checks = checks_of(name, rates, ours)
        section.rows.append(row)
    section.rows += [Row(name, not_measured=reason) for name, reason in missing.items()]
    section.rows[0].detail += f" for {format_bytes(total)}"


def checks_of(name: str, rates: dict, ours: list[str]) -> list[Check]:
    rate = median(rates[name])
    if name == SECURED:
        baseline = rates.get(SECURED_BASELINE)
        return [Check(SECURED_BASELINE, rate / median(baseline), ">=", 0.9)] if baseline else []
    checks = []
    if RAW in rates:
        checks.append(Check(RAW, rate / median(rates[RAW]), ">=", 0.9))
    others = {other: median(samples) for other, samples in rates.items() if other != RAW and other not in ours}
    if others:
        best = max(others, key=others.get)
        checks.append(Check(f"{best}, the best other", rate / others[best], ">=", 1.0))
    return checks
