"""AdamW, and a cosine schedule with a linear warm-up, both per optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from semabench.config import RecipeConfig


def create_optimizer(model: nn.Module, recipe: RecipeConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters of ``model``.

    Biases, norms (every parameter with one dimension or fewer) and what the model's
    ``no_weight_decay()`` names are not decayed.
    """
    named: Callable[[], set[str]] = getattr(model, "no_weight_decay", set)
    groups = param_groups_weight_decay(
        model, recipe.weight_decay, no_weight_decay_list=tuple(named())
    )
    # Lightning refuses to clip the gradients of a fused optimiser under mixed precision.
    fused = next(model.parameters()).is_cuda and recipe.clip_grad is None
    beta1, beta2 = recipe.betas
    return torch.optim.AdamW(
        groups, lr=recipe.lr, betas=(beta1, beta2), eps=recipe.eps, fused=fused
    )


def learning_rate(recipe: RecipeConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimiser step, counted from 0.

    Linear from ``warmup_lr`` to ``lr`` over the warm-up, then half a cosine to ``min_lr``, which
    the last step reaches.
    """
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total - 1)

    def at(step: int) -> float:
        if step < warmup:
            return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * step / warmup
        progress = min((step - warmup) / max(total - 1 - warmup, 1), 1.0)
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * progress)) / 2

    return at


def create_scheduler(
    optimizer: torch.optim.Optimizer, recipe: RecipeConfig, steps_per_epoch: int
) -> LambdaLR:
    """Return the scheduler of :func:`learning_rate`; call ``step()`` after every optimiser step."""
    at = learning_rate(recipe, steps_per_epoch)
    return LambdaLR(optimizer, lambda step: at(step) / recipe.lr)
