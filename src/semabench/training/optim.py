"""AdamW, and the schedule of its rate: ours, or the official ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from semabench.config.schema import RecipeConfig
from semabench.errors import SemabenchError
from semabench.models.staged import undecayed


def create_optimizer(
    model: nn.Module, recipe: RecipeConfig, *, fused: bool = False
) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters of ``model``, in one kernel if ``fused``.

    Biases, norms (every parameter with one dimension or fewer) and what the model's
    ``no_weight_decay()`` names are not decayed. With ``recipe.decay_state_matrix`` the state
    matrices A_log of state-space models are, as by the official code of Vim and VMamba.

    With ``recipe.layer_decay`` d, the layers that the model's ``group_matcher`` tells apart, as
    timm's do, learn at d, d², ... of the rate, counted from the last one before the head back.

    Raises:
        SemabenchError: a layer decay, and the model does not tell its layers.
    """
    named: Callable[[], set[str]] = getattr(model, "no_weight_decay", set)
    spared = named()
    if recipe.decay_state_matrix:
        spared = spared - undecayed(model)
    peak = recipe.lr * rate_scale(recipe)
    names = tuple(sorted(spared))
    if recipe.layer_decay is None:
        groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=names)
    elif hasattr(model, "group_matcher"):
        groups = param_groups_layer_decay(
            model, recipe.weight_decay, no_weight_decay_list=names, layer_decay=recipe.layer_decay
        )
        for group in groups:
            group["lr"] = peak * group.pop("lr_scale")
    else:
        raise SemabenchError(
            f"recipe.layer_decay={recipe.layer_decay:g} needs a model that tells its layers, and "
            f"{type(model).__name__} does not: leave it out."
        )
    beta1, beta2 = recipe.betas
    return torch.optim.AdamW(groups, lr=peak, betas=(beta1, beta2), eps=recipe.eps, fused=fused)


def rate_scale(recipe: RecipeConfig) -> float:
    """Return what the recipe's rates are multiplied by: linear in the global batch (Goyal 2017)."""
    return 1.0 if recipe.lr_batch_size is None else recipe.batch_size / recipe.lr_batch_size


def ema_decay(recipe: RecipeConfig) -> float | None:
    """Return the decay per step of the averaged weights, scaled to the batch where asked for.

    decay ** (batch / ema_batch_size), as MILA's: the average spans the same number of pictures
    whatever the batch.
    """
    if recipe.ema_decay is None or recipe.ema_batch_size is None:
        return recipe.ema_decay
    return recipe.ema_decay ** (recipe.batch_size / recipe.ema_batch_size)


def learning_rate(recipe: RecipeConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimiser step, counted from 0.

    ``cosine``: linear from ``warmup_lr`` to ``lr`` over the warm-up, then half a cosine to
    ``min_lr``, where the rate stays for the cool-down; without one, the last step reaches it.

    ``timm_step`` and ``timm_epoch``: timm's ``CosineLRScheduler`` as MILA's and VMamba's training
    loops (Swin's) and Vim's (DeiT's) drive it. They set the rate *after* each step or epoch, so the
    first two have the same; the cosine would reach ``min_lr`` one after the last.
    """
    scale = rate_scale(recipe)
    peak, least, first = recipe.lr * scale, recipe.min_lr * scale, recipe.warmup_lr * scale
    if recipe.schedule != "cosine":
        unit = steps_per_epoch if recipe.schedule == "timm_epoch" else 1
        count = (recipe.epochs - recipe.cooldown_epochs) * steps_per_epoch / unit
        ramp = int(recipe.warmup_epochs * steps_per_epoch / unit)
        prefix = ramp if recipe.warmup_prefix else 0

        def set_before(step: int) -> float:
            t = max(step // unit - 1, 0)
            if t < ramp:
                return first + (peak - first) * t / ramp
            progress = min((t - prefix) / max(int(count) - prefix, 1), 1.0)
            return least + (peak - least) * (1 + math.cos(math.pi * progress)) / 2

        return set_before

    total = (recipe.epochs - recipe.cooldown_epochs) * steps_per_epoch
    total = max(round(total), 1)
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total - 1)

    def at(step: int) -> float:
        if step < warmup:
            return first + (peak - first) * step / warmup
        progress = min((step - warmup) / max(total - 1 - warmup, 1), 1.0)
        return least + (peak - least) * (1 + math.cos(math.pi * progress)) / 2

    return at


def rate_factor(recipe: RecipeConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Return what every group's peak rate is multiplied by, as a function of the step from 0."""
    at = learning_rate(recipe, steps_per_epoch)
    peak = recipe.lr * rate_scale(recipe)
    return lambda step: at(step) / peak
