"""A run of a few steps on drawn batches, through Lightning but without files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from semabench.config.schema import RecipeConfig
from semabench.data.augment.batch import PixelAugment
from semabench.data.draws import Samples
from semabench.training.lightning_compat import take_over_signals
from semabench.training.module import Classifier
from semabench.training.signals import listening

BATCH = 8


def small_module(
    steps: int,
    *,
    micro_batches: int = 1,
    graph: bool = True,
    model: nn.Module | None = None,
    **recipe: Any,
):
    """A classifier of 4 x 4 pictures under a recipe with everything on."""
    torch.manual_seed(0)
    if model is None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.GELU(), nn.Linear(16, 4))
    settings = {"epochs": 1, "warmup_epochs": 0.5, "lr": 1e-2, "ema_decay": 0.5, "mesa": 1.0}
    settings |= {"mesa_start": 0.0, "clip_grad": 0.1, "random_erase": 0.5, "batch_size": BATCH}
    return Classifier(
        model,
        RecipeConfig(name="r", **(settings | recipe)),
        num_classes=4,
        steps_per_epoch=steps,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=7,
        describe={},
        pixels=PixelAugment(color_jitter=0.4, seed=7),
        micro_batches=micro_batches,
        graph=graph,
    )


def small_batches(steps: int) -> list[tuple[torch.Tensor, torch.Tensor, Samples]]:
    """Batches as of the data room."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randint(0, 256, (BATCH, 3, 4, 4), dtype=torch.uint8, generator=generator),
            torch.randint(0, 4, (BATCH,), generator=generator),
            Samples(0, np.arange(BATCH) + BATCH * step),
        )
        for step in range(steps)
    ]


def fit(
    module: Classifier,
    batches: Iterable[Any],
    callbacks: list[L.Callback],
    accelerator: str = "cpu",
    **options: Any,
) -> L.Trainer:
    """Train for an epoch."""
    trainer = L.Trainer(
        accelerator=accelerator, devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
        **options,
    )  # fmt: skip
    if isinstance(batches, list):
        batches = DataLoader(
            batches,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=lambda batch: batch,
            pin_memory=accelerator == "gpu",
        )
    take_over_signals(trainer)
    with listening():
        trainer.fit(module, batches)
    return trainer
