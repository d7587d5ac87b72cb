"""What token mixers share: projections, heads, rotary encoding, the local term; the registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest
from semabench.ops import depthwise_conv, rotary
from semabench.ops.generalized_attention import Kernel


class Mixer(nn.Module):
    """A token mixer on a grid, (B, H, W, C) -> (B, H, W, C) for any H, W >= 1.

    A subclass implements ``attend`` on (B, H, W, heads, d). Nothing it owns depends on H or W. Its
    options are the keyword-only arguments of its ``__init__``; ``create_mixer`` refuses all others.

    Args:
        dim: channels C.
        num_heads: heads; divides C.
        value_projection: v is projected from x (with a bias, like q and k), or x itself.
        lepe: add a depthwise 3×3 convolution of v to the output (locally enhanced encoding).
        rope: rotate q and k by their position (``ops.rotary``); C must then be a multiple of 4.

    Raises:
        SemabenchError: ``num_heads`` does not divide ``dim``, or ``rope`` does not fit ``dim``.
    """

    name: str  # set by register_mixer
    undecayed: tuple[str, ...] = ()  # parameters that weight decay must spare
    has_heads = True  # whether num_heads makes a difference
    _resolve: Callable[..., str] | None = None  # tells the backend of its op, if that has a choice

    def __init__(
        self, dim: int, num_heads: int, *, value_projection: bool, lepe: bool, rope: bool
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise SemabenchError(f"num_heads={num_heads} does not divide the {dim} channels.")
        if rope and dim % 4:
            raise SemabenchError(f"rope needs a number of channels that 4 divides, not {dim}.")
        self.dim = dim
        self.num_heads = num_heads
        self.value_projection = value_projection
        self.rope = rope
        self.project(dim)
        self.lepe = DepthwiseConv(dim) if lepe else None

    def project(self, dim: int) -> None:
        """Create the layers that give q, k and v: one matrix product for all."""
        if self.value_projection:
            self.qkv = nn.Linear(dim, 3 * dim)
        else:
            self.qk = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens of a grid: (B, H, W, C) -> (B, H, W, C)."""
        q, k, v = self.heads(x)
        return self.add_local(self.attend(q, k, v).flatten(3), v.flatten(3))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v of a grid (B, H, W, C), each (B, H, W, heads, d)."""
        if self.value_projection:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            (q, k), v = self.qk(x).chunk(2, dim=-1), x
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)) for t in (q, k, v))
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the paper's equation on (B, H, W, heads, d)."""
        raise TypeError(f"{type(self).__name__} must implement attend or forward")

    def kernel(self) -> Kernel | None:
        """Return the weights of ``attend`` as generalized attention on the same q and k.

        None for a mixer without such weights. What ``attend`` adds to the weighted values (SEMA's
        mean, FLatten's convolution) is not in it.
        """
        return None

    def rotate(self, x: Tensor) -> Tensor:
        """Encode positions in q or k, (B, H, W, heads, d), if the mixer has RoPE."""
        return rotary(x.flatten(3)).view_as(x) if self.rope else x

    def add_local(self, y: Tensor, v: Tensor) -> Tensor:
        """Add the local term on v, both (B, H, W, C), if the mixer has LePE."""
        return y if self.lepe is None else self.lepe(v, add=y)

    def set_backend(self, resolve: Callable[..., str], backend: str) -> None:
        """Set the backend of an op, which ``resolve`` knows: a wrong name is an error at once."""
        resolve(backend)
        self.backend, self._resolve = backend, resolve

    def resolved_backend(self, device: torch.device | None = None) -> str:
        """Return the op backend that runs on ``device``; "torch" where there is no choice."""
        return "torch" if self._resolve is None else self._resolve(self.backend, device)


class DepthwiseConv(nn.Conv2d):
    """A depthwise 3×3 convolution of a grid, (B, H, W, C), by ``ops.depthwise_conv``."""

    def __init__(self, dim: int, bias: bool = True) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim, bias=bias)
        self.backend = "auto"

    def forward(self, x: Tensor, add: Tensor | None = None, silu: bool = False) -> Tensor:
        """Return the convolution of x, through SiLU if asked for, plus ``add``."""
        return depthwise_conv(x, self.weight, self.bias, add=add, silu=silu, backend=self.backend)


def grid_conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a convolution to a (B, H, W, C) grid: a channels-last view, so nothing is copied."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


_MIXERS: dict[str, type[Mixer]] = {}
M = TypeVar("M", bound=type[Mixer])


def register_mixer(name: str) -> Callable[[M], M]:
    """Class decorator: make a mixer known under ``name``."""

    def register(cls: M) -> M:
        if name in _MIXERS:
            raise SemabenchError(f"A mixer named '{name}' is registered already.")
        cls.name = name
        _MIXERS[name] = cls
        return cls

    return register


def list_mixers() -> list[str]:
    """Return the names of all mixers, by the alphabet."""
    return sorted(_MIXERS)


def headless_mixers() -> list[str]:
    """Return the names of the mixers to which ``num_heads`` makes no difference."""
    return [name for name, mixer in _MIXERS.items() if not mixer.has_heads]


def mixer_options(name: str) -> dict[str, Any]:
    """Return the options of a mixer with their defaults.

    Raises:
        SemabenchError: there is no such mixer.
    """
    if name not in _MIXERS:
        raise SemabenchError(f"No mixer is named '{name}'.{nearest(str(name), _MIXERS)}")
    parameters = inspect.signature(_MIXERS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def create_mixer(name: str, dim: int, num_heads: int, **options: Any) -> Mixer:
    """Create a mixer on ``dim`` channels.

    Raises:
        SemabenchError: unknown name, an option this mixer does not have, or a value out of range.
    """
    known = mixer_options(name)
    for option in options:
        if option not in known:
            hint = nearest(option, known)
            raise SemabenchError(f"The mixer '{name}' has no option '{option}'.{hint}")
    return _MIXERS[name](dim, num_heads, **options)
