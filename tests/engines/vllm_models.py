"""Tiny models that vLLM serves on a CPU, versions of their weights, and what transformers makes of them."""

from __future__ import annotations

import json
import math
import pathlib
import random
import shutil
from typing import Any, Dict, List, Sequence

import gemma4_tiny

VOCABULARY = 512
KINDS = ("qwen3", "gemma4_moe")

# bfloat16 in two implementations; Gemma's router then chooses another expert now and then.
TOLERANCE = {"qwen3": 0.03, "gemma4_moe": 0.2}

Tensors = Dict[str, Any]


def prompt(seed: int, length: int) -> List[int]:
    numbers = random.Random(seed)
    return [2] + [numbers.randrange(4, VOCABULARY) for _ in range(length)]


PROMPTS = [prompt(seed, length) for seed, length in ((1, 40), (2, 97), (3, 12))]


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Mean distance of log-probabilities."""
    assert len(first) == len(second)
    return sum(abs(a - b) for a, b in zip(first, second)) / len(first)


class Family:
    """A model and its versions. Version 0 is the checkpoint that servers begin with."""

    def __init__(self, kind: str, folder: pathlib.Path):
        import torch
        from safetensors.torch import load_file

        torch.set_num_threads(1)
        self.kind = kind
        self.path = folder / kind
        _save(_make(kind), self.path)
        self._checkpoint = load_file(self.path / "model.safetensors")
        self._reference = _Reference(self.path)
        self._prints = {0: self._reference.fingerprint()}

    @property
    def adapter(self) -> str:
        return "identity" if self.kind == "qwen3" else "gemma4_moe"

    def huggingface(self, number: int) -> Tensors:
        """What training could have made of the checkpoint: other values under the same names."""
        import torch

        if number == 0:
            return self._checkpoint
        noise = torch.Generator().manual_seed(number)

        def changed(tensor: Any) -> Any:
            step = 0.15 * tensor.float().std(unbiased=False).clamp(min=0.02)
            return (tensor.float() + step * torch.randn(tensor.shape, generator=noise)).to(tensor.dtype)

        tensors = {name: changed(tensor) for name, tensor in self._checkpoint.items()}
        for name in tensors:
            if name.endswith("per_expert_scale"):  # not trained; Automodel's adapter gives ones
                tensors[name] = torch.ones_like(tensors[name])
        return tensors

    def native(self, number: int) -> Tensors:
        """What a trainer pushes: Automodel's names and layouts, of the text model."""
        tensors = self.huggingface(number)
        if self.kind == "qwen3":
            return tensors
        return dict(_native(name, tensor) for name, tensor in tensors.items() if not name.endswith("per_expert_scale"))

    def checkpoint(self, number: int) -> pathlib.Path:
        """A folder that a server can begin with."""
        from safetensors.torch import save_file

        path = self.path.with_name(f"{self.kind}_version_{number}")
        shutil.copytree(self.path, path, dirs_exist_ok=True)
        save_file(self.huggingface(number), path / "model.safetensors", metadata={"format": "pt"})
        return path

    def fingerprint(self, number: int) -> List[float]:
        """transformers' log-probabilities of the prompts' tokens."""
        if number not in self._prints:
            self._reference.load(self.huggingface(number))
            self._prints[number] = self._reference.fingerprint()
        return self._prints[number]

    def check_is(self, number: int, fingerprint: Sequence[float]) -> None:
        """A server's fingerprint is that of this version, and of no other that was made."""
        assert all(map(math.isfinite, fingerprint)), "log-probabilities that are no numbers"
        own = distance(self.fingerprint(number), fingerprint)
        others = {other: distance(its, fingerprint) for other, its in self._prints.items() if other != number}
        nearest = min(others, key=lambda other: others[other], default=number)
        assert own < TOLERANCE[self.kind], f"{own} from version {number}; {others.get(nearest)} from version {nearest}"
        assert others.get(nearest, math.inf) > 2 * own, f"{own} from version {number}; {others} from others"


class _Reference:
    """transformers' model."""

    def __init__(self, path: pathlib.Path):
        import torch
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()

    def load(self, tensors: Tensors) -> None:
        missing, unexpected = self._model.load_state_dict(tensors, strict=False)
        is_tied = self._model.config.tie_word_embeddings
        assert not unexpected and set(missing) <= ({"lm_head.weight"} if is_tied else set()), (missing, unexpected)
        self._model.tie_weights()

    def fingerprint(self) -> List[float]:
        import torch

        values: List[float] = []
        with torch.no_grad():
            for ids in PROMPTS:
                words = self._model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
                values += [words[place, token].item() for place, token in enumerate(ids[1:])]
        return values


def _make(kind: str) -> Any:
    return _qwen3() if kind == "qwen3" else _gemma4_moe()


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
    )


def _gemma4_moe() -> Any:
    from transformers.models.gemma4 import Gemma4ForCausalLM, Gemma4TextConfig

    config = Gemma4TextConfig(
        **gemma4_tiny.TEXT,
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=6,
        head_dim=32,
        global_head_dim=64,
        sliding_window=64,
        vocab_size_per_layer_input=VOCABULARY,
        num_experts=8,
        top_k_experts=4,
        moe_intermediate_size=64,
        max_position_embeddings=1024,
    )
    return Gemma4ForCausalLM(config)


def _save(model: Any, path: pathlib.Path) -> None:
    """With weights so large that each of them matters to the answers, and with a tokenizer."""
    import torch

    model = model.to(torch.bfloat16)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            random_values = torch.randn(parameter.shape, generator=noise)
            if parameter.dim() < 2:
                parameter.add_((0.05 * random_values).to(parameter.dtype))
            else:
                parameter.copy_((_size(name) * parameter.shape[-1] ** -0.5 * random_values).to(parameter.dtype))
    model.save_pretrained(path)
    _save_tokenizer(path)
    config = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": 1}))


def _size(name: str) -> float:
    """So that routers decide clearly, and answers are neither certain nor mere noise."""
    if "router.proj" in name:
        return 8.0
    return 0.5 if "embed" in name or "lm_head" in name else 1.5


def _save_tokenizer(path: pathlib.Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    words = {word: index for index, word in enumerate(special + [f"w{index}" for index in range(4, VOCABULARY)])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    ).save_pretrained(path)


def _native(name: str, tensor: Any) -> Any:
    """The inverse of the adapter. It keeps the prefix of a model that has a text model inside, which vLLM's text model
    takes off; the ones of per_expert_scale it makes itself."""
    name = name.replace("model.", "model.language_model.", 1)
    if name.endswith("experts.gate_up_proj"):
        return name.replace("experts.gate_up_proj", "moe.experts.gate_and_up_projs"), _transposed(tensor)
    if name.endswith("experts.down_proj"):
        return name.replace("experts.down_proj", "moe.experts.down_projs"), _transposed(tensor)
    return name.replace("router.", "moe.gate."), tensor


def _transposed(tensor: Any) -> Any:
    return tensor.transpose(-2, -1).contiguous()
