"""What the reference package reads, this reads, with the same bytes; what this writes, the package reads.

    differential_test.py PROBE [--files N] [--seed S]

PROBE is the program of probe.cc. Exit code 77: the package is not here.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
from typing import Any

from odd_files import BITS, random_file

try:
    import safetensors
except ImportError:
    print("Skipped: no package safetensors, see deploy/get_torch.sh")
    sys.exit(77)

# What the reference reads and this refuses, as common/safetensors/README.md says: names that would not survive a
# terminal or the wire, sizes that no tensor has, and what the reference's JSON library takes for an object by accident.
REFUSED_HERE = (
    "control character",
    "empty name",
    "at most 1024",
    "at most 16 numbers",
    "at most 2^63-1",
    "more than 2^63-1",
    "whole number of bytes",
    "expected an object, got an array",
    "dtype: expected a string, got an object",
)

Answer = dict[str, Any]


def reference(file: bytes, path: pathlib.Path) -> Answer:
    """As probe.cc answers."""
    try:
        tensors = safetensors.deserialize(file)
        with safetensors.safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
    except Exception as error:
        return {"error": str(error)}
    return {
        "tensors": {name: [t["dtype"], t["shape"], bytes(t["data"]).hex()] for name, t in tensors},
        "metadata": metadata,
    }


def check_aligned(path: pathlib.Path) -> None:
    """Every tensor of a file that this wrote begins at a multiple of its element size, and so do all data."""
    file = path.read_bytes()
    (size,) = struct.unpack("<Q", file[:8])
    assert size % 8 == 0, size
    for name, entry in json.loads(file[8 : 8 + size]).items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] * 8 % max(8, BITS[entry["dtype"]]) == 0, (name, entry)


def compare(number: int, file: bytes, theirs: Answer, ours: Answer, copy: pathlib.Path) -> str:
    """What became of the file; AssertionError for what must not be."""
    what = f"file {number}, {file[:400]!r}: the reference says {theirs}, this {ours}"
    if "error" in theirs:
        assert "error" in ours, what
        return "refused"
    if "error" in ours:
        assert any(reason in ours["error"] for reason in REFUSED_HERE), what
        return "refused here"
    assert ours == theirs, what
    again = reference(copy.read_bytes(), copy)
    assert again == theirs, f"{what}; what this wrote of it reads as {again}"
    check_aligned(copy)
    return "read"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("probe")
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    counts = {"read": 0, "refused": 0, "refused here": 0}
    memory = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None  # each written file is flushed
    with tempfile.TemporaryDirectory(dir=memory) as folder, subprocess.Popen(
        [options.probe], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as probe:
        path, copy = pathlib.Path(folder, "in.safetensors"), pathlib.Path(folder, "out.safetensors")
        for number in range(options.files):
            file = random_file(rng)
            path.write_bytes(file)
            print(path, copy, sep="\t", file=probe.stdin, flush=True)
            ours = json.loads(probe.stdout.readline())
            counts[compare(number, file, reference(file, path), ours, copy)] += 1
        probe.stdin.close()
    print(f"safetensors {safetensors.__version__}, seed {options.seed}: {counts}")
    assert min(counts.values()) > options.files // 100, "the files are not odd enough, or too odd"


main()
