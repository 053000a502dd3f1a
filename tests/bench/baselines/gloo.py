"""torch.distributed over gloo: a broadcast from the trainer (rank 0) to a worker (rank 1), as RL frameworks do it.

Rank 1 reads stdin: a broadcast of --bytes for each line, of whose seconds it tells. Rank 0 follows. --rendezvous is a
file that does not exist yet.
"""

from __future__ import annotations

import argparse
import warnings

import torch
import torch.distributed as distributed
from region import make_warm_region, runs, time_transfers

# A big tensor of a model; what there is is broadcast in so many bytes at a time.
TENSOR_BYTES = 256 << 20


def tensors_of(total: int) -> list[torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        region = torch.frombuffer(make_warm_region(total), dtype=torch.uint8)
    return [region[offset : offset + size] for offset, size in runs(total, TENSOR_BYTES)]


def announce(go: bool) -> bool:
    """Rank 1 tells rank 0 whether there is another round."""
    word = torch.tensor([int(go)])
    distributed.broadcast(word, src=1)
    return bool(word.item())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--rendezvous", required=True)
    arguments = parser.parse_args()
    distributed.init_process_group(
        "gloo", init_method=f"file://{arguments.rendezvous}", rank=arguments.rank, world_size=2
    )
    tensors = tensors_of(arguments.bytes)

    def transfer() -> None:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)

    if arguments.rank == 0:
        while announce(go=False):
            transfer()
        return

    def announced_transfer() -> None:
        announce(go=True)
        transfer()

    time_transfers(announced_transfer)
    announce(go=False)


if __name__ == "__main__":
    main()
