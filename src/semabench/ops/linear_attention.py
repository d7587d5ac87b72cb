"""Linear attention: weights are plain products of (positive) features, normalised to sum to one.

    out_i = Σ_j (q_i·k_j) v_j / (Σ_j q'_i·k'_j + n ε)

q', k' are q, k themselves, or, where a rotary encoding makes products negative, q, k before the
rotation, ``rotary``. All tensors are (B, H, W, heads, d), n = H·W.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.ops.tables import cached_table, resolve

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


def state_product(q: Tensor, k: Tensor, v: Tensor, *, backend: str = "auto") -> Tensor:
    """Return Σ_j (q_i·k_j) v_j: linear attention with q and k of all heads, not normalised.

    Args:
        q, k: (B, H, W, N).
        v: (B, H, W, heads, d).
        backend: "reference", all n×n products, "kv", the sum over tokens first, or "auto" ("kv").

    Returns:
        (B, H, W, heads, d) in float32 or better: it grows with n, beyond half precision's range.
        Sums over tokens are taken as means, which stay in it.

    Raises:
        SemabenchError: there is no such backend.
    """
    n, precise = v.shape[1] * v.shape[2], torch.promote_types(v.dtype, torch.float32)
    queries, keys, values = q.flatten(1, 2), k.flatten(1, 2), v.flatten(3).flatten(1, 2)
    if state_product_backend(backend) == "reference":
        weights = (queries @ keys.transpose(1, 2)).to(precise)
        return (weights @ values.to(precise)).view_as(v)
    half = n**-0.5
    state = (keys * half).transpose(1, 2) @ (values * half)
    return ((queries @ state).to(precise) * n).view_as(v)


def state_product_backend(backend: str = "auto", device: torch.device | None = None) -> str:
    """Return the backend that will run on ``device``: "auto" is "kv" on every device.

    Raises:
        SemabenchError: there is no such backend.
    """
    return resolve("state_product", backend, ("reference", "kv"), auto="kv")


def rotary(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotate the channels of a grid by their position (MILA, Han et al., NeurIPS 2024).

    Adjacent channels (2i, 2i+1) are a complex number. The first C/4 of them turn by their row, the
    other C/4 by their column, number t of each quarter by angle position · base^(-t / (C/4)).

    Args:
        x: (B, H, W, C), any floating dtype, any H, W >= 1. Half precision is rotated in float32.
        base: ratio of the fastest to the (never reached) slowest frequency.

    Returns:
        (B, H, W, C) in the dtype of ``x``.

    Raises:
        SemabenchError: C is not a multiple of 4.
    """
    _, H, W, C = x.shape
    if C % 4:
        raise SemabenchError(f"RoPE needs a number of channels that 4 divides, not {C}.")
    dtype = torch.promote_types(x.dtype, torch.float32)
    cos, sin = rotary_table(H, W, C, base, x.device, dtype)
    real, imaginary = x.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)
    rotated = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return torch.stack(rotated, dim=-1).flatten(-2).to(x.dtype)


@cached_table(maxsize=32)
def rotary_table(
    H: int, W: int, C: int, base: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return cosines and sines of all angles: (2, H, W, C/2), computed in ``dtype``."""
    quarter = C // 4
    frequency = base ** (-torch.arange(quarter, device=device, dtype=dtype) / quarter)
    rows = torch.arange(H, device=device, dtype=dtype)[:, None, None] * frequency
    columns = torch.arange(W, device=device, dtype=dtype)[:, None] * frequency
    angle = torch.cat([rows.expand(H, W, quarter), columns.expand(H, W, quarter)], dim=-1)
    return torch.stack([angle.cos(), angle.sin()])
