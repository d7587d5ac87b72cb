"""Micro-batches: the same samples, augmentation, mixing and rates; the same step to rounding."""

from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch

from helpers.small_run import fit, small_batches, small_module

STEPS = 4


def trained(parts: int, precision: str = "32-true", **recipe):
    """Train for four steps; return the module, the pictures its model saw, and the losses."""
    module = small_module(STEPS, micro_batches=parts, **recipe)
    seen: list[torch.Tensor] = []
    losses: list[float] = []
    module.model.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach().clone()))

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    trainer = fit(module, small_batches(STEPS), [Watch()], precision=precision)
    assert trainer.global_step == STEPS
    return module, seen, losses


@pytest.mark.parametrize("mixing", [{"mixup": 0.8, "cutmix": 1.0}, {"mixup": 0.0, "cutmix": 0.0}])
def test_parts_change_rounding_alone(mixing):
    whole, seen, losses = trained(1, **mixing)
    parted, seen_in_parts, losses_in_parts = trained(4, **mixing)
    assert len(seen_in_parts) == 4 * len(seen) == 4 * STEPS
    # Augmentation and mixing are the whole batch's, to the bit: they come before its division.
    assert torch.equal(torch.cat(seen_in_parts), torch.cat(seen))
    np.testing.assert_allclose(losses_in_parts, losses, rtol=1e-5)
    assert whole.ema is not None
    for name, expected in whole.state_dict().items():
        torch.testing.assert_close(parted.state_dict()[name], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parted.step.mesa_term, whole.step.mesa_term)


def test_parts_agree_under_autocast():
    _, _, losses = trained(1, "bf16-mixed")
    _, _, losses_in_parts = trained(4, "bf16-mixed")
    np.testing.assert_allclose(losses_in_parts, losses, rtol=0.02)
