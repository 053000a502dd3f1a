"""The processes of a refit: ranks of an Automodel trainer, and a worker with transformers.

They are forked from a server that has imported Automodel already, which takes longer than all they do.
"""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import time
from typing import Any, Callable, List, Sequence

import automodel_tiny as tiny

import refit

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "refit",
        "torch._dynamo",
        "transformers.models.gemma4.modeling_gemma4",
        "transformers.models.qwen3_moe.modeling_qwen3_moe",
        "nemo_automodel.components.models.gemma4_moe.model",
        "nemo_automodel.components.models.qwen3_moe.model",
        "nemo_automodel.components.distributed.model_parallelizer",
    ]
)
_PATIENCE = 80.0  # seconds, for importing too


def start(role: Callable[..., None], *arguments: Any) -> Any:
    process = _context.Process(target=role, args=arguments, daemon=True)
    process.start()
    return process


def wait_for(processes: List[Any]) -> None:
    """Until all have ended well. One that does not, or that takes too long, ends the others and fails the test."""
    deadline = time.monotonic() + _PATIENCE
    try:
        while any(process.is_alive() for process in processes):
            codes = [process.exitcode for process in processes]
            assert not any(codes), f"exit codes {codes} (None: still at work)"
            assert time.monotonic() < deadline, f"exit codes {codes} after {_PATIENCE:.0f} s (None: still at work)"
            time.sleep(0.05)
        assert not any(process.exitcode for process in processes), [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def trainer(address: str, folder: pathlib.Path, layout: tiny.Layout, rank: int, versions: Sequence[int]) -> None:
    """Trains, and pushes what its rank holds: `folder`/trainer-N.pt has what version N must be."""
    import torch

    torch.set_num_threads(1)
    model = tiny.native_model(layout.family)
    if layout.ranks > 1:
        _join(folder, rank, layout.ranks)
        model = tiny.parallelized(model, layout)
    training = tiny.Training(model, rank)
    publisher = refit.Publisher(address, adapter=layout.family)
    for version in versions:
        training.steps(2)
        logits = tiny.logits(model)
        with publisher.version(version) as opened:
            opened.push(model.state_dict())
        if rank == 0:
            publisher.wait_for_workers(version, timeout=_PATIENCE)
        expected = {"tensors": tiny.by_its_own_adapter(model), "logits": logits}
        if rank == 0:
            torch.save(expected, folder / f"trainer-{version}.pt")
    if layout.ranks > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _join(folder: pathlib.Path, rank: int, world: int) -> None:
    """torch.distributed over gloo. Automodel's initialize_distributed() does so too, on a port known beforehand."""
    import torch

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)


def worker(address: str, folder: pathlib.Path, versions: Sequence[int], family: str = "gemma4_moe") -> None:
    """Installs each version, strictly: `folder`/worker-N.pt has what came, and what the model then says.

    No key is special: both models' lm_head is tied to the embeddings, and in their state dicts under its own name too.
    """
    import torch

    torch.set_num_threads(1)
    installed = set()

    def install(version: refit.PulledVersion) -> None:
        pulled = dict(version)
        model = tiny.installed(pulled, family)
        torch.save({"tensors": pulled, "logits": tiny.logits(model)}, folder / f"worker-{version.number}.pt")
        installed.add(version.number)

    refit.Subscriber(address).follow(install, until=lambda: installed.issuperset(versions))
