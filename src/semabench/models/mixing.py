"""Look at, and adjust, the token mixers inside a built model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from semabench.errors import SemabenchError
from semabench.mixers import Mixer, WindowedMixer
from semabench.mixers.scan import Scan


def mixers(model: nn.Module) -> Iterator[Mixer]:
    """Yield the token mixers of a model, from the first block to the last."""
    return (module for module in model.modules() if isinstance(module, Mixer))


def mixer_name(model: nn.Module) -> str | None:
    """Return the name of a model's mixer; None for models whose mixer is not ours."""
    return next((mixer.name for mixer in mixers(model)), None)


def backend_name(model: nn.Module, device: torch.device | None = None) -> str:
    """Return the op backend that a model's mixers run on ``device``.

    For models of timm's, whose attention has a switch, "sdpa" (PyTorch's fused attention) or
    "unfused"; "torch" for a model without any choice.
    """
    names = {
        module.resolved_backend(device)
        for module in model.modules()
        if isinstance(module, Mixer | Scan)
    }
    if not names:
        fused = {module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}
        names = {"sdpa" if value else "unfused" for value in fused}
    return "+".join(sorted(names)) or "torch"


def undecayed(model: nn.Module) -> set[str]:
    """Return the parameters of a model's state spaces that weight decay must spare, by name."""
    return {
        f"{path}.{parameter}" if path else parameter
        for path, module in model.named_modules()
        for parameter in getattr(module, "undecayed", ())
    }


def set_window_size(model: nn.Module, window_size: int | tuple[int, int]) -> None:
    """Give all windows of a built model another size; no weight depends on it.

    Raises:
        SemabenchError: the model has no windows, or the size is not positive.
    """
    windowed = [mixer for mixer in mixers(model) if isinstance(mixer, WindowedMixer)]
    if not windowed:
        kind = f"its mixer is {mixer_name(model)}" if mixer_name(model) else type(model).__name__
        raise SemabenchError(f"The model has no windows ({kind}): leave window_size out.")
    for mixer in windowed:
        mixer.window_size = window_size
