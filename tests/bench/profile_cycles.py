#!/usr/bin/env python3
"""Where the cycles go in a push and in a pull over TCP, in percent by kind. Needs perf (Debian: linux-perf) and a built
release preset; prints the table of common/net/BULK_DATA.md."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from refit import REPOSITORY, Service, Setup, Worker, start_trainer

# The first that is found in "library symbol" counts.
KINDS = (
    ("copy into and out of the kernel", r"_copy_(to|from)_iter|copy_user|rep_movs|copy_page"),
    ("first touch of memory", r"clear_page|page_fault|do_anonymous|shmem_|fault_|handle_mm"),
    ("copy into place", r"__mem(cpy|move|set)|N_\w+::.*::Stream\b"),
    ("digest", r"XXH|libxxhash"),
    ("convert", r"hwy|Transpose|Convert|N_AVX|WriteTransposed"),
    ("gRPC, protobuf, allocator", r"libgrpc|libgpr|libabsl|libprotobuf|libc\.so|libstdc"),
    ("sockets, wake-ups and the rest of the kernel", r"\[kernel|\[k\]"),
    ("ours", r"refit|bench"),
)


def kind_of(line: str) -> str:
    return next((kind for kind, pattern in KINDS if re.search(pattern, line)), "other")


def record(pids: list[int], work) -> Counter:
    """Samples by (program, kind) while `work` runs."""
    with tempfile.NamedTemporaryFile() as data:
        command = ["perf", "record", "-q", "-F", "999", "-o", data.name, "-p", ",".join(map(str, pids))]
        perf = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(0.7)
        work()
        perf.send_signal(2)
        perf.wait()
        script = ["perf", "script", "-i", data.name, "-F", "pid,ip,sym,dso"]
        lines = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    samples: Counter = Counter()
    for line in filter(None, map(str.strip, lines)):
        pid, _, place = line.split(None, 2)
        samples[int(pid), kind_of(place)] += 1
    return samples


def print_table(title: str, programs: dict[int, str], samples: Counter) -> None:
    total = sum(samples.values())
    print(f"\n| {title} | " + " | ".join(programs.values()) + " |")
    print("|---" * (1 + len(programs)) + "|")
    for kind in [kind for kind, _ in KINDS] + ["other"]:
        shares = [100 * samples[pid, kind] / total for pid in programs]
        if sum(shares) >= 0.5:
            print(f"| {kind} | " + " | ".join(f"{share:.0f}" for share in shares) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build" / "release", help="build folder")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    setup = Setup(arguments.build / "bin", arguments.rounds, False, None)
    with ExitStack() as stack:
        service = stack.enter_context(Service(setup, "--memory", "8GiB", "--retain", "1"))
        worker = stack.enter_context(Worker(setup, service))
        trainer = start_trainer(stack, setup, service, *setup.synthetic(1))
        for version in (1, 2, 3):  # all memory is warm then
            trainer.push(version)
            worker.pull(version)
        pushes = record([service.pid, trainer.pid], lambda: [trainer.push(4 + i) for i in range(arguments.rounds)])
        pulls = record([service.pid, worker.pid], lambda: [worker.pull(3 + setup.rounds) for _ in range(setup.rounds)])
        print_table("push, % of cycles", {service.pid: "service", trainer.pid: "trainer"}, pushes)
        print_table("pull, % of cycles", {service.pid: "service", worker.pid: "worker"}, pulls)
    return 0


if __name__ == "__main__":
    sys.exit(main())
