"""Reinforcement learning, small but whole: NeMo Automodel trains a tiny Gemma4 MoE on what a vLLM server samples from
it, and after each step the server goes on with the new weights.

The reward is the share of even token ids. All processes start here, and end with this one. Exit code 0: every step was
made, the reward has risen, and the server serves the last version. README.md says more.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import Any, List, Tuple

import torch
from safetensors.torch import load_file

import refit

VOCABULARY = 256
PROMPTS = [[2, 17, 40, 9], [2, 33, 8, 101], [2, 6, 77, 54], [2, 190, 21, 3]]  # token ids; 2 begins a text
SAMPLES, LENGTH = 32, 12  # samples of each prompt, tokens of each sample
LEARNING_RATE = 1e-2
PROBE = [2] + [(7 * i) % 250 + 4 for i in range(40)]  # what trainer and engine are compared by

# How far trainer and engine may be apart in a log-probability. Both compute in F32, and add in different orders only:
# a few 1e-6. Weights that are one step old are off by 0.2 and more; train() makes sure that the two are far apart.
TOLERANCE = 1e-4


def configuration() -> Any:
    """Gemma4 26B-A4B in small: local and global attention, dense and expert MLPs side by side, and a vision tower."""
    from transformers.models.gemma4.configuration_gemma4 import Gemma4Config

    text = dict(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        global_head_dim=64,
        num_global_key_value_heads=2,
        attention_k_eq_v=True,
        sliding_window=64,
        hidden_size_per_layer_input=0,
        enable_moe_block=True,
        num_experts=8,
        top_k_experts=2,
        moe_intermediate_size=64,
        max_position_embeddings=512,
        final_logit_softcapping=30.0,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    vision = dict(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        position_embedding_size=64,
        default_output_length=4,  # vLLM asks for it
    )
    made = Gemma4Config(text_config=text, vision_config=vision, audio_config=None)
    made.torch_dtype = torch.float32
    return made


def make_checkpoint(folder: pathlib.Path) -> None:
    """A Hugging Face checkpoint of random weights, and a tokenizer with one word a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.gemma4.modeling_gemma4 import Gemma4ForConditionalGeneration

    torch.manual_seed(1)
    Gemma4ForConditionalGeneration(configuration()).save_pretrained(folder)
    words = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"w{number}" for number in range(4, VOCABULARY)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict(pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


class Policy:
    """Automodel's model and the policy gradient."""

    def __init__(self, checkpoint: pathlib.Path):
        from nemo_automodel.components.models.common import BackendConfig
        from nemo_automodel.components.models.gemma4_moe.model import Gemma4ForConditionalGeneration

        backend = BackendConfig(dispatcher="torch", experts="torch")  # those that run on a CPU
        self.model = Gemma4ForConditionalGeneration.from_config(configuration(), backend=backend)
        self.model.initialize_weights(torch.device("cpu"), dtype=torch.float32)
        weights = load_file(checkpoint / "model.safetensors")
        weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"]  # tied: not in the file
        self.model.load_state_dict(self.model.state_dict_adapter.from_hf(weights), strict=True)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)

    def log_probabilities(self, tokens: torch.Tensor) -> torch.Tensor:
        """[sequences, length - 1]: of each token but the first, given those before it."""
        logits = self.model(input_ids=tokens).logits[:, :-1]
        return logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)

    def step(self, rollouts: List[Tuple[List[int], List[List[int]]]]) -> float:
        """One optimiser step on each prompt's samples: those better than their group's mean become more likely. Returns
        the mean reward."""
        tokens = torch.tensor([prompt + sample for prompt, samples in rollouts for sample in samples])
        rewards = torch.tensor([[reward(sample) for sample in samples] for _, samples in rollouts])
        advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)
        sampled = self.log_probabilities(tokens)[:, -LENGTH:]
        loss = -(advantages.flatten()[:, None] * sampled).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(rewards.mean())


def reward(sample: List[int]) -> float:
    return sum(token % 2 == 0 for token in sample) / len(sample)


class Engine:
    """`vllm serve` with refit's plug, in a process group of its own, and its routes. Use it in a ``with`` block."""

    def __init__(self, checkpoint: pathlib.Path, log: pathlib.Path):
        self._port = free_port()
        self._log = log
        command = ["setpriv", "--pdeathsig", "TERM", str(pathlib.Path(sys.executable).with_name("vllm")), "serve"]
        command += [str(checkpoint), "--host", "127.0.0.1", "--port", str(self._port), "--served-model-name", "policy"]
        command += ["--dtype", "float32", "--max-model-len", "128", "--max-num-seqs", "64", "--enforce-eager"]
        command += ["--language-model-only", "--weight-transfer-config", json.dumps({"backend": "refit"})]
        environment = dict(
            os.environ,
            HF_HUB_OFFLINE="1",
            VLLM_SERVER_DEV_MODE="1",  # the routes for weights
            VLLM_NO_USAGE_STATS="1",
            VLLM_CPU_KVCACHE_SPACE="1",  # GiB
            VLLM_CPU_OMP_THREADS_BIND="nobind",
            OMP_NUM_THREADS="1",
        )
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: Any) -> None:
        """Asks it to end; what is still there after 20 s, or at a second Ctrl-C, is ended."""
        try:
            os.kill(self._process.pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while not self._has_ended() and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _has_ended(self) -> bool:
        """Leaves it unreaped: until then its number is its group's, and no stranger's."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def wait_until_up(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._is_up():
            if self._has_ended() or time.monotonic() > deadline:
                what = "has ended" if self._has_ended() else f"was not up after {seconds:.0f} s"
                last_words = self._log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"vllm serve {what}; its last words:\n{last_words}")
            time.sleep(0.2)

    def _is_up(self) -> bool:
        try:
            self.call("GET", "/health")
            return True
        except OSError:
            return False

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON, or None if it has none. RuntimeError with what the server says, if it refuses."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code}: {error.read().decode(errors='replace')}") from error
        return json.loads(text) if text else None

    def connect(self, address: str) -> None:
        """To the service, from which it pulls each version from now on while it goes on serving."""
        self.call("POST", "/init_weight_transfer_engine", {"init_info": {"address": address}})

    def sample(self, prompt: List[int]) -> List[List[int]]:
        request = dict(model="policy", prompt=prompt, n=SAMPLES, max_tokens=LENGTH, temperature=1.0)
        answer = self.call("POST", "/v1/completions", dict(request, ignore_eos=True, return_token_ids=True))
        return [choice["token_ids"] for choice in answer["choices"]]

    def update(self, version: int) -> float:
        """Loads a version between two tokens of what is being generated. Returns how long the engine stood still, s."""
        began = time.monotonic()
        self.call("POST", "/pause?mode=keep")
        try:
            self.call("POST", "/start_weight_update")
            self.call("POST", "/update_weights", {"update_info": {"version": version}})
            self.call("POST", "/finish_weight_update", {"weight_version": str(version)})
            self.call("POST", "/reset_prefix_cache?reset_running_requests=true")  # what the old weights made
            self.call("POST", "/reset_mm_cache")
            self.call("POST", "/reset_encoder_cache")
        finally:
            self.call("POST", "/resume")
        return time.monotonic() - began

    def log_probabilities(self, tokens: List[int]) -> torch.Tensor:
        """As Policy's, of one sequence."""
        request = dict(model="policy", prompt=tokens, max_tokens=1, temperature=0, prompt_logprobs=0)
        choice = self.call("POST", "/v1/completions", request)["choices"][0]
        entries = choice["prompt_logprobs"][1:]
        return torch.tensor([entry[str(token)]["logprob"] for token, entry in zip(tokens[1:], entries)])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def distance(policy: Policy, engine: Engine) -> float:
    """The largest difference between what trainer and engine think of a token of the probe."""
    with torch.no_grad():
        ours = policy.log_probabilities(torch.tensor([PROBE]))[0]
    return float((ours - engine.log_probabilities(PROBE)).abs().max())


def train(policy: Policy, engine: Engine, publisher: refit.Publisher, steps: int) -> None:
    """Rollouts, a step, a refit, and again. RuntimeError if the engine is not at the version it was given."""
    rewards = []
    print("step  reward  version    bytes   push s  staged s  pause s   engine off by, before and after")
    for number in range(1, steps + 1):
        rewards.append(policy.step([(prompt, engine.sample(prompt)) for prompt in PROMPTS]))
        before = distance(policy, engine)
        began = time.monotonic()
        with publisher.version(number) as version:
            version.push(policy.model.state_dict())
        pushed = time.monotonic() - began
        publisher.wait_for_workers(number, phase="staged")  # whole and verified, beside the weights in use
        staged = time.monotonic() - began
        paused = engine.update(number)
        after = distance(policy, engine)
        row = f"{number:4}  {rewards[-1]:6.3f}  {number:7}  {version.info.bytes:7}  {pushed:7.3f}  {staged:8.3f}"
        print(f"{row}  {paused:7.3f}   {before:.6f}  {after:.6f}", flush=True)
        check(before > 100 * TOLERANCE, f"step {number} changed log-probabilities by {before} only: too little to tell")
        check(after <= TOLERANCE, f"the engine is off by {after} at version {number}, more than {TOLERANCE}")
    if steps >= 10:  # it is noisy before
        check(rewards[-1] > rewards[0] + 0.1, f"the reward went from {rewards[0]:.3f} to {rewards[-1]:.3f} only")


def check(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise RuntimeError(otherwise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    steps = parser.parse_args().steps
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, lambda number, _: sys.exit(128 + number))
    torch.set_num_threads(1)  # the other core is the engine's
    with tempfile.TemporaryDirectory(prefix="refit-loop-") as work, refit.serve(memory="1GiB") as service:
        checkpoint = pathlib.Path(work, "checkpoint")
        make_checkpoint(checkpoint)
        with Engine(checkpoint, pathlib.Path(work, "vllm.log")) as engine:
            policy = Policy(checkpoint)
            engine.wait_until_up(seconds=300)
            engine.connect(service.address)
            train(policy, engine, refit.Publisher(service.address), steps)
            served = engine.call("GET", "/weight_info")["weight_version"]
            check(served == str(steps), f"the engine says that it serves version {served}, not {steps}")
    print(f"The engine serves version {served}, as the trainer has it.")


if __name__ == "__main__":
    main()
