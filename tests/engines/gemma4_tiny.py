"""What the tests' tiny Gemma4 MoE models have in common."""

from __future__ import annotations

# Of transformers' Gemma4TextConfig: all but the sizes. As Gemma4 26B-A4B: keys are values in global attention, a dense
# MLP is beside the experts, and layers have no inputs of their own.
TEXT = dict(
    num_attention_heads=4,
    num_key_value_heads=2,
    num_global_key_value_heads=2,
    attention_k_eq_v=True,
    hidden_size_per_layer_input=0,
    enable_moe_block=True,
    final_logit_softcapping=30.0,
    pad_token_id=0,
    eos_token_id=1,
    bos_token_id=2,
)
