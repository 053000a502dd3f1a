"""Tiny models as NeMo Automodel makes and trains them, and their twins in transformers: a Gemma4 MoE, and the Qwen3 MoE
of automodel_qwen3.py.

What imports Automodel does so when it is called: pytest's own process only starts those that train and install.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict

import automodel_qwen3
import gemma4_tiny

VOCABULARY = 96

TEXT = dict(
    gemma4_tiny.TEXT,
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    head_dim=8,
    global_head_dim=16,
    sliding_window=8,
    num_experts=6,
    top_k_experts=2,
    moe_intermediate_size=20,
    max_position_embeddings=64,
)

VISION = dict(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    position_embedding_size=64,
)


@dataclass(frozen=True)
class Layout:
    """How Automodel lays the model out.

    Attributes:
        ranks: processes, data parallel: FSDP cuts what is no expert's.
        replicas: of the whole, each of ranks / replicas that FSDP cuts it over.
        expert_parallel: parts that the experts are cut into; where there are more ranks, FSDP cuts their rows too.
        activation_checkpointing: Automodel's wrappers around the layers.
        offloaded: FSDP's shards are in host memory while they are not computed with.
        family: gemma4_moe, or qwen3_moe.
    """

    ranks: int = 1
    replicas: int = 1
    expert_parallel: int = 1
    activation_checkpointing: bool = False
    offloaded: bool = False
    family: str = "gemma4_moe"


def config() -> Any:
    import torch
    from transformers.models.gemma4.configuration_gemma4 import Gemma4Config

    made = Gemma4Config(text_config=dict(TEXT), vision_config=dict(VISION), audio_config=None)
    made.torch_dtype = torch.float32  # Automodel's router and experts take it from here
    return made


def native_model(family: str = "gemma4_moe") -> Any:
    """Automodel's model, on the CPU, in F32, the same in every process."""
    if family == "qwen3_moe":
        return automodel_qwen3.native_model()
    import torch
    from nemo_automodel.components.models.common import BackendConfig
    from nemo_automodel.components.models.gemma4_moe.model import Gemma4ForConditionalGeneration

    torch.manual_seed(1)
    backend = BackendConfig(dispatcher="torch", experts="torch")  # the others need CUDA
    model = Gemma4ForConditionalGeneration.from_config(config(), backend=backend)
    model.initialize_weights(torch.device("cpu"), dtype=torch.float32)
    return model


def parallelized(model: Any, layout: Layout) -> Any:
    """By Automodel's own meshes and parallelizer. torch.distributed is in use."""
    import torch
    from nemo_automodel.components.distributed.config import FSDP2Config
    from nemo_automodel.components.distributed.mesh import MeshContext, ParallelismSizes
    from nemo_automodel.components.distributed.model_parallelizer import parallelize_model
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

    exact = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32, cast_forward_inputs=False)
    offload = CPUOffloadPolicy(pin_memory=False) if layout.offloaded else None  # only CUDA pins
    context = MeshContext.build(
        FSDP2Config(mp_policy=exact, offload_policy=offload),
        ParallelismSizes(dp_replicate_size=layout.replicas, ep_size=layout.expert_parallel),
        activation_checkpointing=layout.activation_checkpointing,
    )
    return parallelize_model(model, context)


def twin() -> Any:
    """transformers' model, its weights wrong until they are loaded."""
    from transformers.models.gemma4.modeling_gemma4 import Gemma4ForConditionalGeneration

    return Gemma4ForConditionalGeneration(config()).float().eval()


def installed(tensors: Dict[str, Any], family: str = "gemma4_moe") -> Any:
    """The twin with these weights, loaded strictly."""
    if family == "qwen3_moe":
        return automodel_qwen3.twin(tensors)
    model = twin()
    model.load_state_dict(tensors, strict=True)
    return model


def prompt() -> Any:
    """[2, 12] token ids."""
    import torch

    return (torch.arange(24).reshape(2, 12) * 7) % (VOCABULARY - 4) + 4


def logits(model: Any) -> Any:
    """[2, 12, vocabulary], F32."""
    import torch

    with torch.no_grad():
        return _logits_of(model(input_ids=prompt()))


def _logits_of(outputs: Any) -> Any:
    """Some models return them as they are."""
    return getattr(outputs, "logits", outputs)


class Training:
    """AdamW on sequences that differ from rank to rank."""

    def __init__(self, model: Any, rank: int = 0):
        import torch

        self.model = model
        self._optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        self._generator = torch.Generator().manual_seed(rank)

    def steps(self, count: int) -> None:
        import torch

        for _ in range(count):
            tokens = torch.randint(4, VOCABULARY, (2, 12), generator=self._generator)
            outputs = _logits_of(self.model(input_ids=tokens))
            torch.nn.functional.cross_entropy(outputs[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
            self._optimizer.step()
            self._optimizer.zero_grad()


def by_its_own_adapter(model: Any) -> Dict[str, Any]:
    """What the model's own adapter makes of it, whole: on every rank, since gathering DTensors is a collective."""
    made: Dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        for hf_name, hf_tensor in model.state_dict_adapter.convert_single_tensor_to_hf(name, whole.detach()):
            made[hf_name] = hf_tensor.clone()
    return made
