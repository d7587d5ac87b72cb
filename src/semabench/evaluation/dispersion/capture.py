"""The q, k and v that a model attends with, as they pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from timm.models.vision_transformer import Attention as TimmAttention
from torch import Tensor, nn

from semabench.errors import SemabenchError
from semabench.mixers import Mixer, create_mixer, list_mixers
from semabench.models import mixer_name
from semabench.ops.generalized_attention import Kernel, Phi, identity, scaled

Listener = Callable[["Layer", Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class Layer:
    """One attention of a model.

    Attributes:
        name: its path in the model.
        module: a mixer of ours, or timm's plain attention.
        kernel: its weights.
        heads: how many.
    """

    name: str
    module: nn.Module
    kernel: Kernel
    heads: int


def attention_layers(model: nn.Module, name: str) -> list[Layer]:
    """Return all attentions of a model, from the first to the last.

    Args:
        model: with our mixers, or a plain vision transformer of timm's (ViT, DeiT).
        name: of the model, for the error.

    Raises:
        SemabenchError: it has none that is of the form of ``ops.generalized_attention``.
    """
    layers = []
    for path, module in model.named_modules():
        if isinstance(module, Mixer) and (kernel := module.kernel()) is not None:
            layers.append(Layer(path, module, kernel, module.num_heads))
        elif isinstance(module, TimmAttention):
            softmax = Kernel(scaled(identity, True), identity, Phi.EXP)
            layers.append(Layer(path, module, softmax, module.num_heads))
    if not layers:
        mixer = mixer_name(model)
        what = f"its mixer {mixer} has" if mixer else f"{type(model).__name__} has"
        raise SemabenchError(
            f"{name} cannot disperse: {what} no queries and keys of the form measured here. "
            f"Choose a model with {', '.join(mixers_with_kernel())}, or timm's ViT or DeiT."
        )
    return layers


def mixers_with_kernel() -> list[str]:
    """Return the names of our mixers whose weights come from q·k."""
    return [name for name in list_mixers() if create_mixer(name, 4, 1).kernel() is not None]


@contextlib.contextmanager
def listening(layers: list[Layer], listener: Listener) -> Iterator[None]:
    """Call ``listener(layer, q, k, v)`` whenever a layer runs; tensors are (B, H, W, heads, d).

    q, k and v are projected once more from what the layer is given, by its own code and in its own
    precision: they are those that it attends with, before ψ.
    """
    handles = [layer.module.register_forward_pre_hook(_hook(layer, listener)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: Layer, listener: Listener) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hear(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, Mixer):
            q, k, v = module.heads(arguments[0])
        else:
            q, k, v = _timm_heads(module, arguments[0])
        listener(layer, q, k, v)

    return hear


def _timm_heads(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v of timm's attention as a grid of one row: class tokens have no place."""
    qkv = module.qkv(x).unflatten(-1, (3, module.num_heads, -1))
    q, k, v = qkv[:, None].unbind(-3)
    return module.q_norm(q), module.k_norm(k), v
