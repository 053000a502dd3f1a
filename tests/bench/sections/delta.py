"""Codecs of deltas: bytes a change, and speed beside memcpy of the same chunks, which bench-delta measures. Then pulls
of deltas: see delta_pulls."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from processes import run
from refit import Setup
from results import Check, Row, Section
from rounds import median
from sections import delta_pulls

TITLE = "Deltas: BF16 of which a share has changed by one or two steps, one thread, 2 MiB chunks, in cold memory"
UNIT = "B a change"
OURS = "refit"
# Its limit is for fast links: dense changes are sent as they are. On slow ones they would be encoded.
ANY_NUMBER = "refit, any number"
WITH_ZSTD = ("dense XOR, zstd 1", "gaps, XOR, zstd 1", "byte gaps, differences, zstd 1")
# Whose way it is.
WHOSE = {
    ANY_NUMBER: "with no limit on changes, for slow links",
    "int32 positions, values": "verl, vLLM",
    "dense XOR, zstd 1": "slime, ModelExpress",
    "gaps, XOR, zstd 1": "NeMo-RL",
    "byte gaps, differences, zstd 1": "as ours, with zstd for its codes",
}
OF_BOUND = 1.10


@dataclass(frozen=True)
class Target:
    bytes_a_change: float
    encode: float  # of memcpy's speed
    apply: float


TARGETS = {
    "0.5 %": Target(1.42, 0.35, 0.8),
    "1 %": Target(1.28, 0.35, 0.7),
    "3 %": Target(1.07, 0.25, 0.4),
    "5 %": Target(0.96, 0.2, 0.3),
}
# Where changes are too many.
GIVEN_UP_ENCODE = 0.5
GIVEN_UP_DENSE = 1.001


def bound(share: float) -> float:
    """Bytes a change, of changes at random places and each of four steps alike."""
    places = -(share * math.log2(share) + (1 - share) * math.log2(1 - share)) / share if share < 1 else 0
    return (places + 2) / 8


def measure(setup: Setup, section: Section) -> None:
    section.unit = UNIT
    argv = [setup.binaries / "bench-delta", f"--rounds={setup.rounds}"]
    argv += [f"--bytes={4 << 20}"] if setup.smoke else []
    for case in json.loads(run("bench-delta", argv)):
        section.rows += [row_of(case, name) for name in case["wire"]]
    if not any(name in case["wire"] for name in WITH_ZSTD):
        section.rows += [Row(name, not_measured="built without libzstd-dev") for name in WITH_ZSTD]
    delta_pulls.measure(setup, section)


def row_of(case: dict, name: str) -> Row:
    wire, dense = case["wire"][name], case["dense"]
    a_change = wire / case["changes"]
    given_up = f"{name}/apply" not in case["speeds"]
    detail = "sent as it is" if given_up else f"{dense / wire:.3g} x smaller"
    if name in WHOSE:
        detail += f"; {WHOSE[name]}"
    checks = checks_of(case, name, a_change, given_up)
    return Row(f"{case['case']} {name}", a_change, UNIT, detail, name.startswith(OURS), checks)


def checks_of(case: dict, name: str, a_change: float, given_up: bool) -> list[Check]:
    target = TARGETS.get(case["case"]) if name == OURS else None

    def at_least(of: str, value: float, limit: float | None) -> Check:
        return Check(of, value) if limit is None else Check(of, value, ">=", limit)

    def of_memcpy(what: str) -> float:
        return median(case["speeds"][f"{name}/{what}"]) / median(case["speeds"]["memcpy"])

    if given_up:
        limit = GIVEN_UP_ENCODE if name == OURS else None
        return [
            Check("dense", case["wire"][name] / case["dense"], "<=", GIVEN_UP_DENSE),
            at_least("memcpy, to give up", of_memcpy("encode"), limit),
        ]
    checks = []
    if target is not None:
        checks.append(Check("a change", a_change, "<=", target.bytes_a_change, "B"))
    if case["case"] != "random bits":
        of_bound = a_change / bound(case["share"])
        checks.append(Check("the entropy", of_bound, *(("<=", OF_BOUND) if target else ())))
    checks.append(at_least("memcpy, to encode", of_memcpy("encode"), target and target.encode))
    checks.append(at_least("memcpy, to apply in place", of_memcpy("apply"), target and target.apply))
    return checks
