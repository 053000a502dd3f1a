"""A small language model with experts, as a trainer lays out Gemma4 MoE, and its twin in Hugging Face's layout."""

import torch
from torch import nn
from torch.nn import functional as F

HIDDEN, EXPERTS, INTERMEDIATE, LAYERS, VOCABULARY, CHOSEN = 32, 6, 24, 2, 50, 2


def mix(x, scores, chosen, expert):
    """The outputs of each token's chosen experts, weighted."""
    weights, indices = scores.softmax(-1).topk(chosen, -1)
    outputs = torch.stack([expert(e, x) for e in range(scores.shape[-1])], -2)
    picked = outputs.gather(-2, indices.unsqueeze(-1).expand(*indices.shape, x.shape[-1]))
    return (picked * (weights / weights.sum(-1, keepdim=True)).unsqueeze(-1)).sum(-2)


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(HIDDEN, EXPERTS, bias=False)
        self.scale = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x):
        return self.proj(x * self.scale)


class NativeExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_and_up_projs = nn.Parameter(torch.randn(EXPERTS, HIDDEN, 2 * INTERMEDIATE) / HIDDEN**0.5)
        self.down_projs = nn.Parameter(torch.randn(EXPERTS, INTERMEDIATE, HIDDEN) / INTERMEDIATE**0.5)

    def forward(self, e, x):
        gate, up = (x @ self.gate_and_up_projs[e]).chunk(2, -1)
        return (F.gelu(gate) * up) @ self.down_projs[e]


class NativeMoE(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.experts = Gate(), NativeExperts()

    def forward(self, x):
        return mix(x, self.gate(x), CHOSEN, self.experts)


class NativeLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.moe = nn.LayerNorm(HIDDEN), NativeMoE()

    def forward(self, x):
        return x + self.moe(self.norm(x))


class Router(Gate):
    def __init__(self):
        super().__init__()
        self.per_expert_scale = nn.Parameter(torch.zeros(EXPERTS))  # wrong until weights come


class HfExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(EXPERTS, 2 * INTERMEDIATE, HIDDEN))
        self.down_proj = nn.Parameter(torch.zeros(EXPERTS, HIDDEN, INTERMEDIATE))

    def forward(self, e, x):
        gate, up = F.linear(x, self.gate_up_proj[e]).chunk(2, -1)
        return F.linear(F.gelu(gate) * up, self.down_proj[e])


class HfLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.router, self.experts = nn.LayerNorm(HIDDEN), Router(), HfExperts()

    def forward(self, x):
        y = self.norm(x)
        return x + mix(y, self.router(y), CHOSEN, lambda e, z: self.experts(e, z) * self.router.per_expert_scale[e])


class LanguageModel(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(HIDDEN)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.embed_tokens.weight.t()


class Model(nn.Module):
    """`NativeLayer` or `HfLayer`."""

    def __init__(self, layer):
        super().__init__()
        self.model = nn.Module()
        self.model.language_model = LanguageModel(layer)

    def forward(self, tokens):
        return self.model.language_model(tokens)


def prompt():
    return torch.arange(3 * 8).reshape(3, 8) * 7 % VOCABULARY
