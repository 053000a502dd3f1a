"""The conversion kernels against memcpy of the same bytes and against LibTorch: bench-kernels does the work."""

from __future__ import annotations

import json
from collections import defaultdict

from processes import run
from refit import Setup
from results import Check, Row, Section
from rounds import median

TITLE = "Kernels: transpose and cast, one thread, warm memory"
# Of what is measured by name: what to divide by, and the least ratio.
TARGETS = {"refit": {"memcpy": 0.85, "torch": 4.0}, "refit_AVX2": {"memcpy": 0.6}}


def measure(setup: Setup, section: Section) -> None:
    argv = [setup.binaries / "bench-kernels", *(["--small"] if setup.smoke else [])]
    argv += ["--benchmark_format=json", f"--benchmark_repetitions={setup.rounds}"]
    argv += ["--benchmark_enable_random_interleaving=true", *(["--benchmark_min_time=0.01"] if setup.smoke else [])]
    rates = rates_by_case(json.loads(run("bench-kernels", argv)))
    for case, contenders in rates.items():
        for name, samples in contenders.items():
            checks = [
                Check(other, median(samples) / median(contenders[other]), ">=", limit)
                for other, limit in TARGETS.get(name, {}).items()
                if other in contenders
            ]
            section.rows.append(
                Row(f"{case} {name}", median(samples), "GB/s", "", name.startswith("refit"), checks, samples)
            )
        if "torch" not in contenders:
            section.rows.append(Row(f"{case} torch", not_measured="built without LibTorch"))


def rates_by_case(report: dict) -> dict[str, dict[str, list[float]]]:
    """GB/s of each repetition, by case and contender."""
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    # They ran in random order.
    for entry in sorted(report["benchmarks"], key=lambda entry: entry["family_index"]):
        if entry["run_type"] != "iteration":
            continue
        _, shape, cast, contender = entry["name"].split("/")[:4]
        rates[f"{shape} {cast}"][contender].append(entry["bytes_per_second"] / 1e9)
    return rates
