"""Linear attention: weights are plain products of (positive) features, normalised to sum to one.

    out_i = Σ_j (q_i·k_j) v_j / (Σ_j q'_i·k'_j + n ε)

q', k' are q, k themselves, or, where a rotary encoding makes products negative, q, k before the
rotation (MILA, Han et al., NeurIPS 2024). All tensors are (B, H, W, heads, d), n = H·W.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semabench.ops.tables import resolve

EPS = 1e-6  # added to the mean product in the denominator


def linear_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, q_normalizer: Tensor, k_normalizer: Tensor, eps: float
) -> Tensor:
    """Compute the equation above as it stands, with all n×n weights."""
    B, H, W, heads, d = q.shape
    q, k, v, q_normalizer, k_normalizer = (
        x.flatten(1, 2).transpose(1, 2) for x in (q, k, v, q_normalizer, k_normalizer)
    )  # (B, heads, n, d)
    weights = q @ k.transpose(-2, -1)
    total = (q_normalizer @ k_normalizer.transpose(-2, -1)).sum(dim=-1, keepdim=True)
    out = (weights @ v) / (total + H * W * eps)
    return out.to(v.dtype).transpose(1, 2).reshape(B, H, W, heads, d)


def linear_attention_kv(
    q: Tensor, k: Tensor, v: Tensor, q_normalizer: Tensor, k_normalizer: Tensor, eps: float
) -> Tensor:
    """Compute the same in linear time: sum k_j v_jᵀ over the tokens first.

    Sums over tokens are taken as means, which stay in the range of half precision at any n, and
    the normaliser is computed in float32 or better: it is divided by, and may be small.
    """
    B, H, W, heads, d = q.shape
    accumulate = torch.promote_types(q.dtype, torch.float32)
    k_mean = k_normalizer.mean(dim=(1, 2), keepdim=True, dtype=accumulate)
    total = (q_normalizer * k_mean).sum(dim=-1)  # (B, H, W, heads)
    normalizer = (1 / (total + eps)).flatten(1, 2).transpose(1, 2)[..., None]

    q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))  # (B, heads, n, d)
    half = (H * W) ** -0.5
    kv = (k * half).transpose(-2, -1) @ (v * half)
    out = (q @ kv) * normalizer
    return out.to(v.dtype).transpose(1, 2).reshape(B, H, W, heads, d)


BACKENDS = {"reference": linear_attention_reference, "kv": linear_attention_kv}


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_normalizer: Tensor | None = None,
    k_normalizer: Tensor | None = None,
    eps: float = EPS,
    backend: str = "auto",
) -> Tensor:
    """Attend with weights linear in the features q and k.

    Args:
        q, k, v: (B, H, W, heads, d), any floating dtype; q and k after their feature map.
        q_normalizer, k_normalizer: features for the denominator, positive; q and k if None.
        eps: added to the mean product in the denominator.
        backend: "reference", "kv" or "auto" (see ``linear_attention_backend``).

    Returns:
        (B, H, W, heads, d) in the dtype of ``v``.

    Raises:
        SemabenchError: there is no such backend.
    """
    run = BACKENDS[linear_attention_backend(backend, q.device)]
    return run(
        q,
        k,
        v,
        q if q_normalizer is None else q_normalizer,
        k if k_normalizer is None else k_normalizer,
        eps,
    )


def linear_attention_backend(backend: str = "auto", device: torch.device | None = None) -> str:
    """Return the backend that will run on ``device``: "auto" is "kv" on every device.

    Raises:
        SemabenchError: there is no such backend.
    """
    return resolve("linear_attention", backend, BACKENDS, auto="kv")
