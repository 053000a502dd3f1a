"""Families that make one tensor of each expert, against the same bytes with experts grouped, as Gemma4 has them."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack

from refit import Service, Setup, Trainer, Worker, start_trainer
from results import Check, Row, Section
from rounds import Transfer, interleave, median

TITLE = "One tensor for each expert, or experts grouped and transposed: push, commit and pull of the same bytes"
# They transpose the same native tensors, and differ in the outputs alone.
SPLIT, GROUPED = "qwen3_moe", "qwen3_5_moe"
NO_LAYER = r"lm_head|model\.(embed_tokens|norm)"


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    layers = 2 if setup.smoke else 48
    small = ["--expert-layers", str(layers)]
    _compare(setup, section, f"{layers} layers of 128 small experts", small)
    if not setup.smoke:
        real = ["--synthetic", "qwen3_30b_a3b", "--layers", "1", "--exclude-key-regex", NO_LAYER]
        _compare(setup, section, "a layer of Qwen3-30B-A3B", real)


def _compare(setup: Setup, section: Section, what: str, source: list[str]) -> None:
    versions = itertools.count(1)
    pushes: dict[str, list[float]] = {}
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "6GiB", "--retain", "1", "--no-deltas"))
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

        contenders = {
            f"{what}, {adapter}": timed(
                f"{what}, {adapter}", start_trainer(stack, setup, service, *source, "--adapter", adapter)
            )
            for adapter in (SPLIT, GROUPED)
        }
        seconds = interleave(contenders, setup.rounds)
    split, grouped = contenders
    for name, samples in seconds.items():
        push = median(pushes[name][1:])
        detail = f"push {push:.3f} s, pull {median(samples) - push:.3f} s"
        section.rows.append(Row(name, median(samples), "s", detail, own=True, samples=samples))
    ratio = median(seconds[split]) / median(seconds[grouped])
    section.rows[-2].checks.append(Check("the grouped one's time", ratio, "<=", 3.0))
