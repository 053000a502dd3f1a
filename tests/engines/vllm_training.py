"""vLLM's trainer half, in a process of its own: what a module holds is what the server serves."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Iterator, Tuple

import pytest
from vllm_models import KINDS, Family, prompt
from vllm_server import ENVIRONMENT, Server

Setup = Tuple[Family, Server]


@pytest.fixture(scope="module", params=KINDS)
def setup(request: pytest.FixtureRequest, folder: pathlib.Path) -> Iterator[Setup]:
    family = Family(request.param, folder)
    server = Server(family.path, folder / f"{family.kind}.log", "--weight-transfer-config", '{"backend": "refit"}')
    yield family, server
    server.end()


@pytest.mark.parametrize("pause", ["", "keep"])
def test_send_weights(setup: Setup, folder: pathlib.Path, pause: str) -> None:
    family, server = setup
    long = prompt(9, 300)
    with open(folder / "trainer.log", "a") as log:
        trainer = subprocess.Popen(
            [sys.executable, __file__, family.kind, str(folder), server.url, pause],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **ENVIRONMENT},
            text=True,
        )
    with trainer:
        assert trainer.stdin is not None and trainer.stdout is not None
        for label, number in enumerate((3, 4), 1):
            server.complete(long, 8)
            sent = next((line for line in trainer.stdout if line.startswith("sent")), "")
            assert sent == f"sent {number}\n", (folder / "trainer.log").read_text()[-3000:]
            family.check_is(number, server.fingerprint())
            assert server.get("/weight_info") == {"weight_version": str(label)}
            cached = server.complete(long, 8)["logprobs"]["token_logprobs"]
            server.reset_caches()
            assert server.complete(long, 8)["logprobs"]["token_logprobs"] == cached  # it was emptied already
            trainer.stdin.write("\n")
            trainer.stdin.flush()
        assert trainer.wait(60) == 0


def main(kind: str, folder: str, url: str, pause: str) -> None:
    from transformers import AutoModelForCausalLM
    from vllm.distributed.weight_transfer import HTTPVLLMWeightSyncClient, ModuleSource, WeightTransferTrainerFactory

    from refit.integrations.vllm import register
    from refit.integrations.vllm.trainer import RefitTrainerInitInfo

    register()
    family = Family(kind, pathlib.Path(folder) / "trainer")
    module = AutoModelForCausalLM.from_pretrained(family.path, dtype="bfloat16")
    engine = WeightTransferTrainerFactory.trainer_init(
        RefitTrainerInitInfo(rank=0, pause=pause), client=HTTPVLLMWeightSyncClient(url), source=ModuleSource(module)
    )
    for number in (3, 4):
        module.load_state_dict(family.huggingface(number), strict=False)
        engine.send_weights()
        print("sent", number, flush=True)
        sys.stdin.readline()
    engine.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
