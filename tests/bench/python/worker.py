"""bench-worker in Python: pulls the versions whose numbers it reads, verified, into memory that it reuses.

  worker.py --server ADDRESS --transport tcp|shm [--into out] [--tuned]

Prints "ready <transport>", then for each line "<version> <bytes> <seconds>". --into out: into tensors that it has
already. --tuned: calls refit.tune_allocator(). Needs the package refit (PYTHONPATH).
"""

from __future__ import annotations

import argparse
import sys
import time

import refit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--transport", choices=("tcp", "shm"), default="tcp")
    parser.add_argument("--into", choices=("pool", "out"), default="pool")
    parser.add_argument("--tuned", action="store_true")
    arguments = parser.parse_args()
    if arguments.tuned:
        refit.tune_allocator()
    transport = {"tcp": "wire", "shm": "shared_memory"}[arguments.transport]
    sub = refit.Subscriber(arguments.server, transport=transport)
    print("ready", arguments.transport, flush=True)
    version = out = None
    for line in sys.stdin:
        version = None  # its memory is the next one's
        begin = time.monotonic()
        version = sub.pull(int(line), out=out)
        seconds = time.monotonic() - begin
        if arguments.into == "out" and out is None:
            out = {tensor.name: tensor for tensor in sub.pull(int(line), copy=True).tensors}
        print(version.number, version.info.bytes, f"{seconds:.6f}", flush=True)


if __name__ == "__main__":
    main()
