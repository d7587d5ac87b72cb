"""A batch in parts: the same samples, augmentation, mixing and rates; the same step to rounding."""

from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from semabench.config import RecipeConfig
from semabench.data.augment.batch import PixelAugment
from semabench.data.sampling import Samples
from semabench.training.module import Classifier

STEPS = 4


def fit(parts: int, **recipe) -> tuple[Classifier, list[torch.Tensor], list[float]]:
    """Train for four steps; return the module, the pictures its model saw, and the losses."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.GELU(), nn.Linear(16, 4))
    settings = {"epochs": 1, "warmup_epochs": 0.5, "lr": 1e-2, "ema_decay": 0.5, "mesa": 1.0}
    settings |= {"mesa_start": 0.0, "clip_grad": 0.1, "random_erase": 0.5} | recipe
    module = Classifier(
        model,
        RecipeConfig(name="r", **settings),
        num_classes=4,
        steps_per_epoch=STEPS,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=7,
        describe={},
        pixels=PixelAugment(color_jitter=0.4, seed=7),
        parts=parts,
    )
    seen: list[torch.Tensor] = []
    losses: list[float] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    generator = torch.Generator().manual_seed(1)
    batches = [
        (
            torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8, generator=generator),
            torch.randint(0, 4, (8,), generator=generator),
            Samples(0, np.arange(8) + 8 * step),
        )
        for step in range(STEPS)
    ]
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Watch()],
        gradient_clip_val=module.recipe.clip_grad,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch))
    assert trainer.global_step == STEPS
    return module, seen, losses


@pytest.mark.parametrize("mixing", [{"mixup": 0.8, "cutmix": 1.0}, {"mixup": 0.0, "cutmix": 0.0}])
def test_parts_change_rounding_alone(mixing):
    whole, seen, losses = fit(1, **mixing)
    parted, seen_in_parts, losses_in_parts = fit(4, **mixing)
    assert len(seen_in_parts) == 4 * len(seen) == 4 * STEPS
    # Augmentation and mixing are the whole batch's, to the bit: they come before its division.
    assert torch.equal(torch.cat(seen_in_parts), torch.cat(seen))
    np.testing.assert_allclose(losses_in_parts, losses, rtol=1e-5)
    assert whole.ema is not None
    for name, expected in whole.state_dict().items():
        torch.testing.assert_close(parted.state_dict()[name], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parted.mesa_term, whole.mesa_term)
