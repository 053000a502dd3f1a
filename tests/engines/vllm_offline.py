"""vLLM in a program: LLM with refit's worker extension."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Dict, List

import pytest
from vllm_models import KINDS, PROMPTS, Family
from vllm_server import ENVIRONMENT, Service

_PATIENCE = 400


@pytest.mark.parametrize("kind", KINDS)
def test_the_worker_extension(kind: str, folder: pathlib.Path) -> None:
    family, service = Family(kind, folder), Service(folder)
    for number in (1, 2):
        service.publish(family, number)
    lacking = family.native(3)
    lacking.pop(next(name for name in lacking if "layers.1.self_attn.k_proj" in name))
    service.publish(family, 3, tensors=lacking)
    try:
        told = _run(str(family.path), service.address)
    finally:
        service.end()
    prints = told["fingerprints"]
    for number in range(3):
        family.check_is(number, prints[number])
    assert told["updates"] == [[1], [2]]
    assert "77" in told["refused"][0] and "k_proj" in told["refused"][1]
    assert prints[3] == prints[4] == prints[2]
    assert told["cached"][1] == told["cached"][2], "values of the old weights are left after reset_prefix_cache()"


def _run(path: str, address: str) -> Dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, path, address],
        stdout=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        timeout=_PATIENCE,
        check=True,
    )
    told: Dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith(b"{")))
    return told


def main(path: str, address: str) -> None:
    """In the process of its own."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        path,
        worker_extension_cls="refit.integrations.vllm.RefitWorkerExtension",
        enforce_eager=True,
        dtype="bfloat16",
        max_model_len=512,
        max_num_seqs=8,
    )

    def fingerprint() -> List[float]:
        values: List[float] = []
        prompts = [{"prompt_token_ids": ids} for ids in PROMPTS]
        settings = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        for ids, output in zip(PROMPTS, llm.generate(prompts, settings, use_tqdm=False)):
            values += [place[token].logprob for token, place in list(zip(ids, output.prompt_logprobs))[1:]]
        return values

    def greedy() -> List[int]:
        settings = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
        return list(llm.generate([{"prompt_token_ids": PROMPTS[1]}], settings, use_tqdm=False)[0].outputs[0].token_ids)

    fingerprints, updates, refused, cached = [fingerprint()], [], [], [greedy()]
    llm.collective_rpc("refit_follow", args=(address,))
    for number in (1, 2):
        updates.append(llm.collective_rpc("refit_update", args=(address, number)))
        llm.reset_prefix_cache()
        fingerprints.append(fingerprint())
    cached.append(greedy())
    llm.reset_prefix_cache()
    cached.append(greedy())
    for number in (77, 3):
        try:
            llm.collective_rpc("refit_update", args=(address, number))
        except Exception as error:
            refused.append(str(error))
        fingerprints.append(fingerprint())
    print(json.dumps(dict(fingerprints=fingerprints, updates=updates, refused=refused, cached=cached)))


if __name__ == "__main__":
    main(*sys.argv[1:])
