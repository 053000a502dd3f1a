"""A tiny Qwen3 MoE as NeMo Automodel makes it, and its twin in transformers, which has experts fused in memory."""

from __future__ import annotations

from typing import Any, Dict
from unittest import mock

VOCABULARY = 96


def config() -> Any:
    import torch
    from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig

    made = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=6,
        num_experts_per_tok=2,
        moe_intermediate_size=20,
        max_position_embeddings=64,
        decoder_sparse_step=1,
        norm_topk_prob=True,
        tie_word_embeddings=False,
    )
    made.torch_dtype = torch.float32
    return made


def native_model() -> Any:
    """Automodel's model, on the CPU, in F32, the same in every process."""
    import torch
    from nemo_automodel.components.models.common import BackendConfig
    from nemo_automodel.components.models.qwen3_moe.model import Qwen3MoeForCausalLM

    torch.manual_seed(1)
    backend = BackendConfig(dispatcher="torch", experts="torch", attn="sdpa", linear="torch", rms_norm="torch")
    with mock.patch("torch.cuda.current_device", return_value=0):  # its name alone is taken, and then replaced
        model = Qwen3MoeForCausalLM.from_config(config(), backend=backend)
    model.initialize_weights(torch.device("cpu"), dtype=torch.float32)
    return model


def twin(tensors: Dict[str, Any]) -> Any:
    """transformers' model of these weights: all of them, and no others."""
    import torch
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeForCausalLM

    model, told = Qwen3MoeForCausalLM.from_pretrained(
        None, config=config(), state_dict=dict(tensors), output_loading_info=True, dtype=torch.float32
    )
    assert not any(told.values()), told
    return model.eval()
