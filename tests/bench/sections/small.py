"""What a tensor costs whatever its bytes: very many small ones against one of the same size."""

from __future__ import annotations

from refit import Setup
from refits import compare_refits
from results import Section

TITLE = "Small tensors: push, commit and pull"
TENSOR_BYTES = 1024


def measure(setup: Setup, section: Section) -> None:
    section.unit = "s"
    count = 1000 if setup.smoke else 100_000
    trainers = {
        f"{tensors:,} of {size:,} B": ["--tensors", str(tensors), "--tensor-bytes", str(size)]
        for tensors, size in ((count, TENSOR_BYTES), (1, count * TENSOR_BYTES))
    }
    compare_refits(setup, section, ["--memory", "4GiB", "--retain", "1"], trainers, "the one's time", 3.0)
