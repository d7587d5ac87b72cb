"""Between two looks at the loss nothing in a training step waits for the device."""

from __future__ import annotations

import lightning as L
import pytest
import torch

from helpers.small_run import fit, small_batches, small_module
from semabench.training.monitor import LossWatch, Throughput, Waiting
from semabench.training.optim import create_optimizer
from semabench.training.step import WARMUP

EVERY = 4


@pytest.mark.parametrize("mixing", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_a_step_reads_no_value_from_its_device(mixing, monkeypatch):
    """On the meta device there are no values: whatever asks for one fails."""
    module = small_module(100, **mixing).to("meta")
    module.step = module.create_step(create_optimizer(module.model, module.recipe))
    watch = LossWatch(EVERY)
    trainer = type("Trainer", (), {"global_step": 1, "is_last_batch": False})()
    monkeypatch.setattr(type(module), "global_rank", 0)
    images, labels, samples = small_batches(1)[0]
    batch = images.to("meta"), labels.to("meta"), samples
    loss = module.step(*batch, 0, mesa=True)
    watch.on_train_batch_end(trainer, module, {"loss": loss}, batch, 0)
    assert watch.first_bad is not None
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()  # the test can fail


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_gpu_is_not_waited_for_between_looks(parts, graph):
    class Guard(L.Callback):
        """The first callback: it lets through what the log step reads."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            # Recording waits once, for what has been asked of the device before.
            looks = (trainer.global_step + 1) % EVERY == 0 or trainer.global_step in (0, WARMUP)
            torch.cuda.set_sync_debug_mode("default" if looks else "error")

        def on_train_end(self, trainer, pl_module):
            torch.cuda.set_sync_debug_mode("default")

        def on_exception(self, trainer, pl_module, exception):
            torch.cuda.set_sync_debug_mode("default")

    waiting = Waiting()
    callbacks = [Guard(), LossWatch(EVERY), Throughput(EVERY, 8, waiting), waiting]
    steps = 3 * EVERY
    # In float32 no peak is known, so that no resolution is asked for: there is no datamodule.
    trainer = fit(
        small_module(steps, micro_batches=parts, graph=graph),
        small_batches(steps),
        callbacks,
        "gpu",
    )
    assert trainer.global_step == steps
