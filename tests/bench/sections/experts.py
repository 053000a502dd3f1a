"""Families that make one tensor of each expert, against the same bytes with experts grouped, as Gemma4 has them."""

from __future__ import annotations

from refit import Setup
from refits import compare_refits
from results import Section

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
    trainers = {f"{what}, {adapter}": [*source, "--adapter", adapter] for adapter in (SPLIT, GROUPED)}
    service = ["--memory", "6GiB", "--retain", "1", "--no-deltas"]
    compare_refits(setup, section, service, trainers, "the grouped one's time", 3.0)
