"""The bounds of an option that is a number."""

from __future__ import annotations

import math
from typing import Any

from semabench.config import EvalConfig, TrainConfig
from semabench.errors import SemabenchError

# Inclusive bounds; None: unbounded. An option that is null is not checked.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**63 - 1),
    "batch_size": (1, None),
    "window_size": (1, None),
    "data.num_workers": (1, 1024),
    "model.drop_path_rate": (0, 0.99),
    "data.crop_pct": (1e-3, 1),
    "data.hflip": (0, 1),
    "data.holdout": (1e-6, 0.99),
    "recipe.epochs": (1, None),
    "recipe.warmup_epochs": (0, None),
    "recipe.cooldown_epochs": (0, None),
    "recipe.batch_size": (1, None),
    "recipe.lr": (1e-30, None),
    "recipe.lr_batch_size": (1, None),
    "recipe.layer_decay": (1e-3, 1),
    "recipe.min_lr": (0, None),
    "recipe.warmup_lr": (0, None),
    "recipe.weight_decay": (0, None),
    "recipe.eps": (0, None),
    "recipe.clip_grad": (1e-30, None),
    "recipe.label_smoothing": (0, 1),
    "recipe.color_jitter": (0, None),
    "recipe.random_erase": (0, 1),
    "recipe.repeated_augmentation": (1, None),
    "recipe.mixup": (0, None),
    "recipe.cutmix": (0, None),
    "recipe.mix_prob": (0, 1),
    "recipe.mix_switch_prob": (0, 1),
    "recipe.ema_decay": (0, 1),
    "recipe.ema_batch_size": (1, None),
    "recipe.mesa": (0, None),
    "recipe.mesa_start": (0, 1),
    "trainer.devices": (1, None),
    "trainer.num_nodes": (1, None),
    "trainer.val_every_n_epochs": (1, None),
    "trainer.log_every_n_steps": (1, None),
    "trainer.save_every_n_steps": (1, None),
    "trainer.val_batch_size": (1, None),
    "trainer.compile_min_steps": (0, None),
    "trainer.accumulate": (1, None),
    "trainer.profile_steps": (1, None),
}


def check_ranges(config: TrainConfig | EvalConfig) -> None:
    """Raise a SemabenchError that names the first number out of its bounds, and these."""
    for key, (low, high) in _RANGES.items():
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name, None)
        if value is None:
            continue
        if not math.isfinite(value):
            raise SemabenchError(f"{key} must be a finite number, not {value}.")
        if not ((low is None or value >= low) and (high is None or value <= high)):
            bounds = f"at least {low:g}" + ("" if high is None else f" and at most {high:g}")
            raise SemabenchError(f"{key} must be {bounds}, not {value}.")
