"""Transformer blocks with rotary positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.model.config import TransformerConfig
from matcher.model.rope import RotaryTables, rotate

__all__ = ["LAYER_NORM_EPS", "CrossBlock", "SelfBlock", "layer_norm"]

LAYER_NORM_EPS = 1e-6


def layer_norm(dim: int) -> nn.LayerNorm:
    """The layer normalisation of every released network."""
    return nn.LayerNorm(dim, eps=LAYER_NORM_EPS)


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    batch, count, _ = tokens.shape
    return tokens.reshape(batch, count, num_heads, -1).transpose(1, 2)


def _merge_heads(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).flatten(2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of (B, heads, N, C) queries to (B, heads, M, C) keys and values."""
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        # On a CPU, forward and backward of the fused kernels take two to three times as long as
        # these products: one recomputes the attention, the other leaves bfloat16.
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.mT)
        return torch.matmul(scores.softmax(dim=-1), value)
    return F.scaled_dot_product_attention(query, key, value)


class SelfAttention(nn.Module):
    """Attention of tokens (B, N, C) to themselves."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotary: RotaryTables | None) -> Tensor:
        """``rotary``: tables of the tokens' own positions; ``None``: positions were added."""
        query, key, value = (
            _split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1)
        )
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        attended = _attend(query, key, value)
        mixed: Tensor = self.proj(_merge_heads(attended))
        return mixed


class CrossAttention(nn.Module):
    """Attention of tokens (B, N, C) to the other view's (B, M, C)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, memory: Tensor, rotary: RotaryTables | None, other: RotaryTables | None
    ) -> Tensor:
        """``rotary``, ``other``: tables of the two views' positions."""
        query = _split_heads(self.query(x), self.num_heads)
        key = _split_heads(self.key(memory), self.num_heads)
        value = _split_heads(self.value(memory), self.num_heads)
        if rotary is not None and other is not None:
            query, key = rotate(query, rotary), rotate(key, other)
        attended = _attend(query, key, value)
        mixed: Tensor = self.proj(_merge_heads(attended))
        return mixed


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        hidden: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return hidden


class SelfBlock(nn.Module):
    """Pre-norm block of the encoder."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = layer_norm(dim)
        self.attn = SelfAttention(dim, config.num_heads)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor, rotary: RotaryTables | None) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.attn(self.norm1(x), rotary)
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class CrossBlock(nn.Module):
    """Pre-norm block of the decoder: itself, then the other view, then the MLP."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = layer_norm(dim)
        self.attn = SelfAttention(dim, config.num_heads)
        self.norm2 = layer_norm(dim)
        self.norm_memory = layer_norm(dim)
        self.cross_attn = CrossAttention(dim, config.num_heads)
        self.norm3 = layer_norm(dim)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))

    def forward(
        self, x: Tensor, memory: Tensor, rotary: RotaryTables | None, other: RotaryTables | None
    ) -> Tensor:
        """``x`` (B, N, C) attends to itself and to ``memory`` (B, M, C)."""
        x = x + self.attn(self.norm1(x), rotary)
        x = x + self.cross_attn(self.norm2(x), self.norm_memory(memory), rotary, other)
        mixed: Tensor = x + self.mlp(self.norm3(x))
        return mixed
