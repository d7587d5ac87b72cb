"""SEMA's attention: a softmax inside disjoint windows, plus the mean of all values.

    out_m = Σ_{j∈J(m)} exp(s q_m·k_j) v_j / Σ_{i∈J(m)} exp(s q_m·k_i)  +  (1/n) Σ_j v_j

J(m) is the window of token m, n = H·W counts all tokens of the image, s is the scale
(VideoSEMA, arXiv 2607.14711, eq. 2, 3, 9). All tensors are (B, H, W, heads, d).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.ops.tables import autocast_dtype, cached_table, on_triton, resolve

Pair = tuple[int, int]


def window_mean_reference(
    q: Tensor, k: Tensor, v: Tensor, window: Pair, shift: Pair, scale: float, mean: bool
) -> Tensor:
    """Compute the equation above as it stands, with all n×n logits."""
    B, H, W, heads, d = q.shape
    label = window_labels(H, W, window, shift, q.device).flatten()
    same_window = label[:, None] == label[None, :]

    q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))  # (B, heads, n, d)
    logits = scale * q @ k.transpose(-2, -1)
    weights = logits.masked_fill(~same_window, -torch.inf).softmax(dim=-1).to(v.dtype)
    out = weights @ v
    if mean:
        out = out + v.mean(dim=-2, keepdim=True)
    return out.transpose(1, 2).reshape(B, H, W, heads, d)


def window_labels(H: int, W: int, window: Pair, shift: Pair, device: torch.device) -> Tensor:
    """Number the windows: (H, W) int64, from 1, equal where two tokens share a window.

    A shift moves the borders by that many tokens down and right; the cut-off windows that this
    leaves at the first rows and columns are windows of their own, as Swin's mask makes them.
    """
    row = (torch.arange(H, device=device) - shift[0]) // window[0] + 1
    column = (torch.arange(W, device=device) - shift[1]) // window[1] + 1
    return row[:, None] * (W + 1) + column + 1


def window_mean_sdpa(
    q: Tensor, k: Tensor, v: Tensor, window: Pair, shift: Pair, scale: float, mean: bool
) -> Tensor:
    """Compute the same in linear time: cut the grid into windows for torch's fused attention.

    Grids that the window does not divide are padded at the bottom and the right, and a shift is a
    cyclic one (Swin); a mask by label then keeps padding and wrapped-around tokens apart. The mask
    is left out where neither occurs. The mean is taken over the values as given, so that padding
    never enters it, accumulated in float32 or better and rounded once to the dtype of ``v``.
    """
    B, H, W, heads, _ = q.shape
    q_windows, k_windows, v_windows = (_to_windows(x, window, shift) for x in (q, k, v))
    mask = None
    if H % window[0] or W % window[1] or any(shift):
        mask = _window_mask(H, W, window, shift, q.device)
    out = F.scaled_dot_product_attention(
        q_windows, k_windows, v_windows, attn_mask=mask, scale=scale
    )
    out = _from_windows(out, B, H, W, heads, window, shift)
    return out + grid_mean(v).to(out.dtype) if mean else out


def grid_mean(v: Tensor) -> Tensor:
    """Return the mean over the grid, (B, H, W, ...) -> (B, 1, 1, ...).

    Summed in float32 or better and rounded once, to the dtype of ``v`` or of autocast.
    """
    accumulate = torch.promote_types(v.dtype, torch.float32)
    mean = v.mean(dim=(1, 2), keepdim=True, dtype=accumulate)
    return mean.to(autocast_dtype(v.device) or v.dtype)


def _to_windows(x: Tensor, window: Pair, shift: Pair) -> Tensor:
    """(B, H, W, heads, d) -> (B·heads, windows, tokens of a window, d).

    Windows take the place of heads: one mask serves the whole batch by broadcasting, and
    B·windows, which outgrows CUDA's limit of 65535 blocks at large batches, is never one dimension.
    """
    B, H, W, heads, d = x.shape
    (h, w), bottom, right = window, -H % window[0], -W % window[1]
    if bottom or right:
        x = F.pad(x, (0, 0, 0, 0, 0, right, 0, bottom))
    if any(shift):
        x = x.roll((-shift[0], -shift[1]), dims=(1, 2))
    x = x.reshape(B, (H + bottom) // h, h, (W + right) // w, w, heads, d)
    return x.permute(0, 5, 1, 3, 2, 4, 6).reshape(B * heads, -1, h * w, d)


def _from_windows(
    x: Tensor, B: int, H: int, W: int, heads: int, window: Pair, shift: Pair
) -> Tensor:
    """Undo ``_to_windows``; the padding is cut off."""
    (h, w), d = window, x.shape[-1]
    rows, columns = -(-H // h), -(-W // w)
    x = x.reshape(B, heads, rows, columns, h, w, d).permute(0, 2, 4, 3, 5, 1, 6)
    x = x.reshape(B, rows * h, columns * w, heads, d)
    if any(shift):
        x = x.roll(shift, dims=(1, 2))
    return x[:, :H, :W]


@cached_table(maxsize=64)
def _window_mask(H: int, W: int, window: Pair, shift: Pair, device: torch.device) -> Tensor:
    """Who may attend to whom, (1, windows, tokens, tokens) bool: exactly those of equal label.

    Labels start at 1 and padding is 0, so that padding attends to padding: no row is empty.
    """
    label = window_labels(H, W, window, shift, device)[None, :, :, None, None]
    label = _to_windows(label, window, shift)  # (1, windows, tokens, 1)
    return label == label.transpose(-2, -1)


BACKENDS = {"reference": window_mean_reference, "sdpa": window_mean_sdpa}


def window_mean(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | Pair,
    *,
    shift: int | Pair = 0,
    scale: float | None = None,
    mean: bool = True,
    backend: str = "auto",
) -> Tensor:
    """Attend inside windows and add the mean of all values (SEMA).

    Args:
        q, k, v: (B, H, W, heads, d), any floating dtype, any H, W >= 1.
        window_size: tokens per side, or (rows, columns). A window larger than the grid shrinks to
            it, in each dimension by itself.
        shift: tokens by which the window borders move down and right, less than the window.
            Nothing moves in a dimension that one window covers.
        scale: factor on the logits; 1/sqrt(d) if None.
        mean: add the mean of all values; False leaves plain window attention.
        backend: "reference", "sdpa" or "auto" (see ``window_mean_backend``).

    Returns:
        (B, H, W, heads, d) in the dtype of ``v``, or of autocast.

    Raises:
        SemabenchError: the window, the shift or the backend's name is not valid.
    """
    window, moved = _fit(window_size, shift, q.shape[1], q.shape[2])
    run = BACKENDS[window_mean_backend(backend, q.device)]
    return run(q, k, v, window, moved, q.shape[-1] ** -0.5 if scale is None else scale, mean)


def _fit(window_size: int | Pair, shift: int | Pair, H: int, W: int) -> tuple[Pair, Pair]:
    """Return window and shift on a grid of this size.

    Raises:
        SemabenchError: as ``window_mean``.
    """
    (window_h, window_w), (shift_h, shift_w) = _pair(window_size), _pair(shift)
    if min(window_h, window_w) < 1:
        raise SemabenchError(f"window_size must be at least 1, not {window_size}.")
    if not (0 <= shift_h < window_h and 0 <= shift_w < window_w):
        raise SemabenchError(f"shift must lie in [0, window_size = {window_size}), not {shift}.")
    if window_h >= H:
        window_h, shift_h = H, 0
    if window_w >= W:
        window_w, shift_w = W, 0
    return (window_h, window_w), (shift_h, shift_w)


def window_mean_backend(backend: str = "auto", device: torch.device | None = None) -> str:
    """Return the backend that will run on ``device``: "auto" is "sdpa" on every device.

    Raises:
        SemabenchError: there is no such backend.
    """
    return resolve("window_mean", backend, BACKENDS, auto="sdpa")


FUSED_TOKENS = 64  # of the largest window that the fused kernels take
FUSED_CHANNELS = 64  # of the widest head


def window_mean_fused_backend(
    backend: str = "auto", device: torch.device | None = None, dtype: torch.dtype | None = None
) -> str:
    """Return the backend of ``window_mean_fused``, or that of ``window_mean`` to use instead.

    "auto" is "triton" on a GPU; that is "sdpa" where its kernels do not run: on a CPU, in float64.

    Raises:
        SemabenchError: there is no such backend, or it is not installed.
    """
    return on_triton("window_mean", backend, (*BACKENDS, "triton"), "sdpa", device, dtype)


def window_mean_fused(
    qkv: Tensor,
    num_heads: int,
    window_size: int | Pair,
    *,
    shift: int | Pair = 0,
    scale: float | None = None,
    mean: bool = True,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Compute ``window_mean`` and a depthwise convolution of the values by Triton, in one node.

    Args:
        qkv: (B, H, W, 3C): queries, keys and values side by side, as one projection gives them.
        num_heads: divides C.
        window_size, shift, scale, mean: as in ``window_mean``; up to ``FUSED_TOKENS`` a window.
        weight, bias: (C, 1, 3, 3) and (C), of the convolution to add (LePE), or none.

    Returns:
        (B, H, W, C) in the dtype of ``qkv``.

    Raises:
        SemabenchError: as ``window_mean``; shapes that do not fit, windows of too many tokens or
            heads of too many channels.
    """
    from semabench.ops.window_mean.triton_backend import window_mean_triton

    if qkv.ndim != 4 or qkv.shape[3] % (3 * num_heads):
        raise SemabenchError(
            f"window_mean_fused needs qkv (B, H, W, 3C) for {num_heads} heads, not "
            f"{tuple(qkv.shape)}."
        )
    C = qkv.shape[3] // 3
    local = (None if weight is None else weight.shape, None if bias is None else bias.shape)
    if local not in ((None, None), ((C, 1, 3, 3), None), ((C, 1, 3, 3), (C,))):
        raise SemabenchError(
            f"window_mean_fused needs weight ({C}, 1, 3, 3) and bias ({C}), not {local}."
        )
    if C // num_heads > FUSED_CHANNELS:
        raise SemabenchError(
            f"window_mean's backend 'triton' takes {FUSED_CHANNELS} channels a head, not "
            f"{C // num_heads}; use 'sdpa'."
        )
    window, moved = _fit(window_size, shift, qkv.shape[1], qkv.shape[2])
    if window[0] * window[1] > FUSED_TOKENS:
        raise SemabenchError(
            f"window_mean's backend 'triton' takes {FUSED_TOKENS} tokens a window, not "
            f"{window[0]}x{window[1]}; use 'sdpa'."
        )
    scale = (qkv.shape[-1] // (3 * num_heads)) ** -0.5 if scale is None else scale
    return window_mean_triton(qkv, weight, bias, num_heads, window, moved, scale, mean)


def _pair(size: int | Pair) -> Pair:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
