"""Build any model by name: ours and timm's, in one way and with errors in one line."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
from timm.models import get_pretrained_cfg
from torch import nn

from semabench.errors import SemabenchError, first_line, nearest
from semabench.models import mila, probe, vim, vmamba
from semabench.models.checkpoint import load_checkpoint
from semabench.progress import note

# A mixer can be chosen in models of the common macro-architecture; the others are baselines.
MACRO_NAMES = [*mila.VARIANTS, *probe.VARIANTS]
MODEL_NAMES = [*MACRO_NAMES, *vmamba.VARIANTS, *vim.VARIANTS]


def model_names() -> list[str]:
    """Return the names of semabench's own models, by family and size."""
    return list(MODEL_NAMES)


def build_model(
    name: str,
    *,
    num_classes: int | None,
    resolution: int,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    mixer: str | None = None,
    fused_attention: bool | None = None,
    options: Mapping[str, Any],
    new_head: bool = False,
) -> nn.Module:
    """Build a model of ours or of timm's.

    Args:
        name: a name that timm knows once ``semabench.models`` is imported, or one of weights in
            timm's layout: "hf-hub:OWNER/NAME", "local-dir:PATH".
        num_classes: of the classifier; None keeps the model's own number.
        resolution: of its images in pixels. Models whose weights depend on it are built for it.
        in_chans: channels of its images.
        drop_path_rate: None keeps the model's own.
        checkpoint: weights to load: an official file of MILA, Vim or VMamba, or one with the
            model's own keys.
        pretrained: load timm's published weights.
        mixer: token mixer in place of the name's own; for the common macro-architecture.
        fused_attention: whether a model of timm's computes attention with PyTorch's fused kernels;
            None keeps timm's choice. No weight depends on it.
        options: further arguments of the model, and of the mixer; None stands for "not given".
        new_head: where ``checkpoint`` is for another number of classes, keep the fresh classifier.

    Raises:
        SemabenchError: unknown model, mixer or option; weights that are not there or do not fit.
    """
    _check_name(name)
    for option, instead in _FRAMEWORKS.items():
        if option in options:
            raise SemabenchError(f"option '{option}' of {name} is not for here: {instead}.")
    arguments = {key: value for key, value in options.items() if value is not None}
    if mixer is not None:
        if name not in MACRO_NAMES:
            raise SemabenchError(f"{name} has no exchangeable mixer: leave mixer={mixer} out.")
        arguments["mixer"] = mixer
    config = None if name in MODEL_NAMES or ":" in name else get_pretrained_cfg(name)
    if name in vim.VARIANTS or (config and config.fixed_input_size):  # some weight depends on it
        arguments.setdefault("img_size", resolution)
    remote = pretrained and not name.startswith("local-dir:")
    plain = {"num_classes": num_classes, "in_chans": in_chans, "drop_path_rate": drop_path_rate}
    try:
        with _quiet_hub(), _reachable_hub(name) if remote else contextlib.nullcontext():
            model: nn.Module = timm.create_model(name, pretrained=pretrained, **plain | arguments)
    except SemabenchError:
        raise
    except (TypeError, ValueError, AssertionError, RuntimeError, OSError) as error:
        raise SemabenchError(_explain(name, error, pretrained)) from error
    if fused_attention is not None:  # read at every call, whatever TIMM_FUSED_ATTN says
        attentions = [module for module in model.modules() if hasattr(module, "fused_attn")]
        if not attentions:
            raise SemabenchError(f"{name} has no attention of timm's: leave fused_attention out.")
        for module in attentions:
            module.fused_attn = fused_attention  # type: ignore[assignment]
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, name, new_head=new_head)
    return model


_FRAMEWORKS = {
    "num_classes": "the dataset tells it",
    "in_chans": "images have three channels",
    "drop_path_rate": "set model.drop_path_rate",
    "pretrained": "set model.pretrained=true",
    "checkpoint_path": "set model.checkpoint=PATH",
    "features_only": "a classifier is trained; timm.create_model gives features",
    "out_indices": "a classifier is trained; timm.create_model gives features",
}
"""Arguments of timm's that something else decides."""


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Leave out the hub's account of every attempt: if all fail, one error says so."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "httpx", "urllib3", "timm")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _reachable_hub(name: str) -> Iterator[None]:
    """Let the hub look into its cache alone where it cannot be reached: else it tries for long."""
    from huggingface_hub import constants

    note(f"weights of {name}: from {constants.ENDPOINT}, cached in {constants.HF_HUB_CACHE}")
    before = constants.HF_HUB_OFFLINE
    host = urlsplit(constants.ENDPOINT)
    reached = threading.Event()

    def reach() -> None:
        with contextlib.suppress(OSError):
            socket.create_connection((host.hostname or "", host.port or 443), timeout=5).close()
            reached.set()

    if not before:
        thread = threading.Thread(target=reach, daemon=True)
        thread.start()
        thread.join(8)  # finding the address has no time limit of its own
    constants.HF_HUB_OFFLINE = not reached.is_set()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _check_name(name: str) -> None:
    if timm.is_model(name) or name.startswith(("hf-hub:", "local-dir:")):
        return
    # A name without its ending, as our configs have it for timm's models, means the plainest one.
    longer = [known for known in timm.list_models() if name and known.startswith(f"{name}_")]
    hint = nearest(min(longer, key=len), longer) if longer else nearest(name, timm.list_models())
    if not hint.startswith(" Did you mean"):
        hint = f" Choose one of {', '.join(MODEL_NAMES)}, or any model of timm's."
    raise SemabenchError(f"No model is named '{name}'.{hint}")


def _explain(name: str, error: Exception, pretrained: bool) -> str:
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown:
        return f"{name} has no option '{unknown[1]}'."
    reason = first_line(error)
    advice = ""
    if pretrained:
        from huggingface_hub.constants import HF_HUB_CACHE

        advice = f" Weights come from the network, or from {HF_HUB_CACHE}."
    return f"{name} cannot be built: {reason}{advice}"


@dataclass(frozen=True)
class Published:
    """One published result on ImageNet-1k: to compare with, never mixed with what is measured here.

    Recipes differ: MILA trains with MESA and averaged weights, Vim and VMamba with neither MESA nor
    reported averaged weights, timm's peers by recipes of their own.
    """

    params: float  # millions
    gmacs: float  # multiply-adds of one 224 px image, in 10⁹; papers call them GFLOPs
    top1: float  # per cent, single crop at 224 px
    # name in ``conf/recipe`` of how it was trained; None: not written down here
    recipe: str | None
    source: str  # where it was published


_MILA = "Han et al. 2024, arXiv 2405.16605, official repository"
_VMAMBA = "Liu et al. 2024, arXiv 2401.10166, official repository"
_VIM = "Zhu et al. 2024, arXiv 2401.09417, official repository"
_DEIT = "Touvron et al. 2021, arXiv 2012.12877"
_SWIN = "Liu et al. 2021, arXiv 2103.14030"
_CONVNEXT = "Liu et al. 2022, arXiv 2201.03545"
_MAMBAOUT = "Yu and Wang 2024, arXiv 2405.07992"

PUBLISHED = {
    "mila_tiny": Published(24.39, 4.2, 83.5, "mila_tiny", _MILA),
    "mila_small": Published(43.02, 7.3, 84.4, "mila_small", _MILA),
    "mila_base": Published(95.98, 16.2, 85.3, "mila_base", _MILA),
    "vmamba_tiny_s1l8": Published(30.25, 4.9, 82.6, "vmamba", _VMAMBA),
    "vmamba_tiny_s2l5": Published(30.71, 4.9, 82.5, "vmamba", _VMAMBA),
    "vmamba_small_s2l15": Published(50.15, 8.7, 83.6, "vmamba", _VMAMBA),
    "vmamba_base_s2l15": Published(88.56, 15.4, 83.9, "vmamba", _VMAMBA),
    "vim_tiny": Published(7.15, 1.5, 76.1, "vim_tiny", _VIM),
    "vim_small": Published(25.80, 5.1, 80.5, "vim_small", _VIM),
    "vim_base": Published(97.60, 17.5, 81.9, None, _VIM),
    "deit_small_patch16_224": Published(22.05, 4.6, 79.8, None, _DEIT),
    "swin_tiny_patch4_window7_224": Published(28.29, 4.5, 81.2, None, _SWIN),
    "swin_small_patch4_window7_224": Published(49.61, 8.7, 83.2, None, _SWIN),
    "swin_base_patch4_window7_224": Published(87.77, 15.4, 83.5, None, _SWIN),
    "convnext_tiny": Published(28.6, 4.5, 82.1, None, _CONVNEXT),
    "convnext_small": Published(50.2, 8.7, 83.1, None, _CONVNEXT),
    "convnext_base": Published(88.6, 15.4, 83.8, None, _CONVNEXT),
    "mambaout_tiny": Published(26.5, 4.5, 82.7, None, _MAMBAOUT),
    "mambaout_small": Published(48.5, 9.0, 84.1, None, _MAMBAOUT),
    "mambaout_base": Published(84.8, 15.8, 84.2, None, _MAMBAOUT),
}
