"""A former name of refit.integrations.vllm.trainer, for programs that have it."""

from __future__ import annotations

from refit.integrations.vllm.trainer import RefitTrainerInitInfo, RefitTrainerWeightTransferEngine

__all__ = ["RefitTrainerInitInfo", "RefitTrainerWeightTransferEngine"]
