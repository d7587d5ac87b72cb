"""Selective scan (Mamba, Gu and Dao 2023, arXiv 2312.00752, eq. 2 and algorithm 2).

For each image and channel d, with dt = delta + delta_bias (through softplus if asked),

    h_l = exp(dt_l A) h_{l-1} + dt_l B_l u_l,     h_{-1} = 0          N numbers
    y_l = Σ_n C_l h_l + D u_l
    out = y, or y · silu(z)

Channels share B and C in groups: channel d uses group d // (dim / groups). A group scanned in
reverse starts at the last position; its output stays at the place of its input, so nothing is ever
flipped or copied. The state is kept in float32 or better whatever the inputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.ops.selective_scan.torch_backend import selective_scan_torch
from semabench.ops.tables import missing_for_triton, resolve

BACKENDS = ("reference", "torch", "triton", "mamba_ssm")
# Looked up once: torch.compile does not trace the search.
LACKS = {
    "triton": missing_for_triton(),
    "mamba_ssm": "" if find_spec("mamba_ssm") else "the package mamba_ssm",
}


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, reverse: tuple[bool, ...],
) -> Tensor:  # fmt: skip
    """Compute the equations above as they stand, one position at a time."""
    dtype, state = u.dtype, torch.promote_types(u.dtype, torch.float32)
    batch, dim, L = delta.shape
    groups = B.shape[1]
    u = u.to(state).repeat(1, dim // u.shape[1], 1)
    dt = delta.to(state)
    if delta_bias is not None:
        dt = dt + delta_bias.to(state)[:, None]
    if delta_softplus:
        dt = F.softplus(dt)
    A = A.to(state)
    B, C = (x.to(state).repeat_interleave(dim // groups, dim=1) for x in (B, C))  # (b, dim, N, L)

    # Turning the reversed channels round is the one way to write both directions in one line each.
    backwards = torch.tensor(reverse, device=u.device).repeat_interleave(dim // groups)
    u, dt, B, C = (_turn(x, backwards) for x in (u, dt, B, C))
    h = torch.zeros(batch, dim, A.shape[1], dtype=state, device=u.device)
    y = []
    for i in range(L):
        h = torch.exp(dt[..., i, None] * A) * h + (dt[..., i] * u[..., i])[..., None] * B[..., i]
        y.append((h * C[..., i]).sum(-1))
    out = torch.stack(y, dim=-1)

    if D is not None:
        out = out + D.to(state)[:, None] * u
    out = _turn(out, backwards)
    if z is not None:
        out = out * F.silu(z.to(state))
    return out.to(dtype)


def _turn(x: Tensor, backwards: Tensor) -> Tensor:
    """Reverse the positions (last dimension) of the channels (dimension 1) that ask for it."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    return torch.where(backwards.view(shape), x.flip(-1), x)


def selective_scan_mamba_ssm(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, reverse: tuple[bool, ...],
) -> Tensor:  # fmt: skip
    """Compute the same with the official CUDA kernel; it scans forwards only, so flip copies."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    dtype, dim, groups = u.dtype, delta.shape[1], B.shape[1]
    u = u if u.shape[1] == dim else u.repeat(1, dim // u.shape[1], 1)
    A = A.float()
    D, delta_bias = (None if x is None else x.float() for x in (D, delta_bias))
    if not any(reverse):
        return selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus).to(dtype)
    by_group = torch.tensor(reverse, device=u.device)
    by_channel = by_group.repeat_interleave(dim // groups)
    u, delta = _turn(u, by_channel), _turn(delta, by_channel)
    z = None if z is None else _turn(z, by_channel)
    B, C = _turn(B, by_group), _turn(C, by_group)
    out = selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return _turn(out, by_channel).to(dtype)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool | Sequence[bool] = False,
    backend: str = "auto",
) -> Tensor:
    """Scan u with the state-space model that delta, A, B and C make at each position.

    Args:
        u: (batch, dim, L), any floating dtype; or (batch, dim / m, L): then its channels serve
            again for each of m parts of dim, without being copied. VMamba's four directions are
            groups of one call: u = row-major and column-major images, side by side, m = 2, and
            reverse = (False, False, True, True).
        delta: (batch, dim, L), step sizes before bias and softplus.
        A: (dim, N), negative.
        B, C: (batch, groups, N, L).
        D, delta_bias: (dim).
        z: (batch, dim, L), gate.
        delta_softplus: whether step sizes are softplus(delta + delta_bias).
        reverse: scan from the last position to the first; one for all groups or one for each.
        backend: "reference", "torch", "triton", "mamba_ssm" or "auto" (see
            ``selective_scan_backend``).

    Returns:
        (batch, dim, L) in the dtype of ``u``, every position at the place of its input. Backends
        agree to 1e-5 in float32 and 5e-3 in bfloat16, relative to the largest number, in their
        outputs and gradients; "reference" and "torch" to 1e-10 in float64.

    Raises:
        SemabenchError: shapes do not fit, or the backend's name is not valid or it cannot run here.
    """
    groups = B.shape[1] if B.ndim == 4 else 0
    directions = (reverse,) * groups if isinstance(reverse, bool) else tuple(map(bool, reverse))
    _check(u, delta, A, B, C, D, z, delta_bias, directions)
    name = selective_scan_backend(backend, u.device, u.dtype)
    if name == "triton":
        from semabench.ops.selective_scan.triton_backend import selective_scan_triton as run
    else:
        run = _RUN[name]
    return run(u, delta, A, B, C, D, z, delta_bias, delta_softplus, directions)


_RUN: dict[str, Callable[..., Tensor]] = {
    "reference": selective_scan_reference,
    "torch": selective_scan_torch,
    "mamba_ssm": selective_scan_mamba_ssm,
}


def selective_scan_backend(
    backend: str = "auto", device: torch.device | None = None, dtype: torch.dtype | None = None
) -> str:
    """Return the backend that will run on ``device`` (None: a CPU) for inputs of ``dtype``.

    "auto" is "triton" on a CUDA device where it has what it needs, but for float64; else "torch".

    Raises:
        SemabenchError: there is no such backend, or it is not installed.
    """
    on_gpu = device is not None and device.type == "cuda" and dtype != torch.float64
    auto = "triton" if on_gpu and not LACKS["triton"] else "torch"
    name = resolve("selective_scan", backend, BACKENDS, auto=auto)
    if LACKS.get(name):
        raise SemabenchError(
            f"selective_scan's backend '{name}' needs {LACKS[name]}, which is not installed; "
            "backend='auto' picks one that runs here."
        )
    if name == "triton" and dtype == torch.float64:
        raise SemabenchError(
            "selective_scan's backend 'triton' computes in float32 and takes no float64; "
            "use 'torch'."
        )
    return name


def _check(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, directions: tuple[bool, ...],
) -> None:  # fmt: skip
    """Raise a SemabenchError that names the tensor whose shape does not fit."""
    if delta.ndim != 3 or delta.shape[-1] < 1 or A.ndim != 2 or B.ndim != 4:
        raise SemabenchError(
            "selective_scan needs delta (batch, dim, L >= 1), A (dim, N), B (batch, groups, N, L), "
            f"not {_shape(delta)}, {_shape(A)}, {_shape(B)}."
        )
    (batch, dim, L), N, groups = delta.shape, A.shape[1], B.shape[1]
    if dim % groups or len(directions) != groups:
        raise SemabenchError(
            f"selective_scan has {groups} groups: they must divide dim = {dim}, and reverse must "
            f"be one bool or {groups}, not {len(directions)}."
        )
    if u.ndim != 3 or u.shape[1] < 1 or dim % u.shape[1] or (u.shape[0], u.shape[2]) != (batch, L):
        raise SemabenchError(
            f"selective_scan needs u of shape ({batch}, {dim}, {L}), or with a divisor of {dim} "
            f"channels, not {_shape(u)}."
        )
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "A": (A, (dim, N)),
        "B": (B, (batch, groups, N, L)),
        "C": (C, (batch, groups, N, L)),
        "D": (D, (dim,)),
        "z": (z, (batch, dim, L)),
        "delta_bias": (delta_bias, (dim,)),
    }
    for name, (x, shape) in expected.items():
        if x is not None and tuple(x.shape) != shape:
            raise SemabenchError(f"selective_scan needs {name} of shape {shape}, not {_shape(x)}.")


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
