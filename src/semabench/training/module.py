"""The Lightning module: one classifier, one recipe."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from semabench.config.schema import RecipeConfig
from semabench.data.augment.batch import BatchAugment, PixelAugment
from semabench.data.epoch import TrainBatch
from semabench.data.mixup import Mix
from semabench.data.normalize import Normalize
from semabench.training.counts import Counts
from semabench.training.optim import create_optimizer, create_scheduler, ema_decay

Batch = tuple[Tensor, Tensor]


class Classifier(L.LightningModule):
    """Trains ``model`` by ``recipe``; validates it and, where the recipe has one, its EMA.

    Args:
        model: images (B, 3, R, R) float to logits (B, num_classes).
        recipe: what to do; see `config.RecipeConfig`.
        num_classes: of the data set.
        steps_per_epoch: optimiser steps, the same on every rank.
        mean, std: of the model's normalisation, for pixels in 0..1.
        seed: of the run. The draws of step t depend on (seed, t, rank) only, so that a resumed
            run repeats what an undisturbed one would have drawn.
        describe: stored in every checkpoint; says what the weights are.
        pixels: augmentation of uint8 pixels that is left to do on the device.
        parts: equal parts in which a batch goes through the model, one after another. All draws
            but the model's own (drop path, dropout) are the batch's, whatever the parts.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: RecipeConfig,
        *,
        num_classes: int,
        steps_per_epoch: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
        describe: dict[str, Any],
        pixels: PixelAugment | None = None,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        decay = ema_decay(recipe)
        self.ema = None if decay is None else ModelEmaV3(model, decay=decay)
        if self.ema is not None:
            self.ema.requires_grad_(False)  # or DDP waits for its gradients
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.parts = parts
        self.describe = describe
        self.augment = BatchAugment(pixels or PixelAugment(), recipe.random_erase, seed)
        self.normalize = Normalize(mean, std)
        self.mix = Mix(
            num_classes,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            prob=recipe.mix_prob,
            switch_prob=recipe.mix_switch_prob,
        )
        self.mesa_term: Tensor | None = None  # of the last loss
        self.counts = Counts()
        self.ema_counts = Counts()

    def on_train_batch_start(self, batch: TrainBatch, batch_idx: int) -> None:
        """Make this step's draws (drop path, dropout, mixing) a function of the step."""
        torch.manual_seed(step_seed(self.seed, self.global_step, self.global_rank))

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; nothing here waits for the device."""
        images, labels, samples = batch
        images = self.normalize(self.augment.change(images, samples))
        images, targets = self.mix(self.augment.erase(images, samples), labels)
        self.mesa_term = None
        if self.parts == 1:
            return self._loss(images, targets)
        self._zero_gradients()
        *before, last = zip(images.chunk(self.parts), targets.chunk(self.parts), strict=True)
        total = torch.zeros((), device=images.device)
        for part in before:
            loss = self._loss(*part)
            total += loss.detach()
            self._accumulate(loss)
        # Lightning goes backward through the last part alone, and is told the loss of the batch.
        return total + self._loss(*last)

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return a part's share of the mean loss of the batch."""
        logits = self.model(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)
        if self.mesa_is_on:
            mesa = self.recipe.mesa * self._mesa(images, logits)
            share = mesa.detach() / self.parts
            self.mesa_term = share if self.mesa_term is None else self.mesa_term + share
            loss = loss + mesa
        return loss / self.parts

    def _zero_gradients(self) -> None:
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()

    def _accumulate(self, loss: Tensor) -> None:
        """Add to the gradients; under DDP, which is still in its forward pass, to this rank's."""
        with torch.autocast(loss.device.type, enabled=False):
            self.trainer.strategy.backward(loss, None)

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """Leave it to the step where that has gone backward through some parts already."""
        if self.parts == 1:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    @property
    def mesa_is_on(self) -> bool:
        """Whether this epoch learns from the averaged weights, too."""
        recipe = self.recipe
        started = self.current_epoch >= int(recipe.mesa_start * recipe.epochs)
        return recipe.mesa > 0 and started

    def _mesa(self, images: Tensor, logits: Tensor) -> Tensor:
        """Cross-entropy with what the averaged weights predict for the same, mixed, pictures.

        MESA (Du et al. 2022, arXiv 2205.14083) in the form that MILA's family of code trains with:
        no temperature, no smoothing.
        """
        assert self.ema is not None
        with torch.no_grad():
            target = self.ema.module(images).float().softmax(dim=-1)
        return F.cross_entropy(logits, target)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then update the averaged weights: whatever stores this step holds both."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.model, step=self.global_step + 1)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.counts.reset()
        self.ema_counts.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the correct predictions of one batch."""
        images, labels = batch
        images = self.normalize(images)
        self.counts.add(self.model(images), labels)
        if self.ema is not None:
            self.ema_counts.add(self.ema.module(images), labels)

    def on_validation_epoch_end(self) -> None:
        """Log accuracies in percent over the samples of all ranks, each counted once."""
        self._log_counts("val", self.counts)
        if self.ema is not None:
            self._log_counts("val_ema", self.ema_counts)

    def _log_counts(self, prefix: str, counts: Counts) -> None:
        # Every rank logs the same value, reduced already: no second reduction is asked for.
        sums = self.trainer.strategy.reduce(counts.sums, reduce_op="sum")
        result = counts.result(sums)
        for name in ("loss", "top1", "top5"):
            self.log(f"{prefix}/{name}", result[name], sync_dist=False)

    def configure_optimizers(self) -> Any:
        """Return AdamW and its per-step schedule, as Lightning wants them."""
        # A fused optimiser unscales float16's gradients by itself, after they should be clipped.
        fused = self.device.type == "cuda" and not str(self.trainer.precision).startswith("16")
        optimizer = create_optimizer(self.model, self.recipe, fused=fused)
        scheduler = create_scheduler(optimizer, self.recipe, self.steps_per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients; Lightning's own would refuse a fused optimiser."""
        if gradient_clip_val is None:
            return
        if str(self.trainer.precision).startswith("16"):
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
        else:
            nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the weights are: model, data, recipe, classes."""
        checkpoint["semabench"] = self.describe

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def monitor(self) -> str:
        """The metric by which the best checkpoint is chosen."""
        return "val/top1" if self.ema is None else "val_ema/top1"


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return 63 bits that no two (seed, step, rank) are likely to share, mixed as splitmix64."""
    z = (seed * 0x9E3779B97F4A7C15 + (step << 16) + rank + 1) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) >> 1
