"""The Lightning module: one classifier, one recipe. Its steps are `step.TrainStep`'s."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from semabench.config.schema import RecipeConfig
from semabench.data.augment.batch import BatchAugment, Normalize, PixelAugment
from semabench.data.epoch import TrainBatch
from semabench.data.mixup import Mix
from semabench.training.counts import Counts
from semabench.training.device import PRECISION_DTYPES
from semabench.training.forward import Forward
from semabench.training.lightning_compat import bring_up_to_date, count_step
from semabench.training.optim import create_optimizer, ema_decay, rate_factor
from semabench.training.reduce import GradientReducer
from semabench.training.step import Objective, PrepareImages, TrainStep, step_seed

Batch = tuple[Tensor, Tensor]


class Classifier(L.LightningModule):
    """Trains ``model`` by ``recipe``; validates it and, where the recipe has one, its EMA.

    Args:
        model: images (B, 3, R, R) float to logits (B, num_classes).
        recipe: what to do; see `config.schema.RecipeConfig`.
        num_classes: of the dataset.
        steps_per_epoch: optimiser steps, the same on every rank.
        mean, std: of the model's normalisation, for pixels in 0..1.
        seed: of the run. The draws of step t depend on (seed, t, rank) only, so that a resumed
            run repeats what an undisturbed one would have drawn.
        describe: stored in every checkpoint; says what the weights are.
        pixels: augmentation of uint8 pixels that is left to do on the device.
        micro_batches: equal parts in which a batch goes through the model.
        graph: record steps as CUDA graphs, on a GPU.
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
        micro_batches: int = 1,
        graph: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        decay = ema_decay(recipe)
        self.ema = None if decay is None else ModelEmaV3(model, decay=decay)
        if self.ema is not None:
            self.ema.requires_grad_(False)
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.micro_batches = micro_batches
        self.graph = graph
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
        self.step: TrainStep
        self.counts = Counts()
        self.ema_counts = Counts()
        self._forwards: list[Forward] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW, which `TrainStep` steps and whose rates it sets."""
        trainer, recipe = self.trainer, self.recipe
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # A fused optimiser unscales float16's gradients by itself, after they should be clipped.
        fused = self.device.type == "cuda" and scaler is None
        optimizer = create_optimizer(self.model, recipe, fused=fused)
        reducer = None
        if trainer.world_size > 1:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            modules = [self.model] if self.ema is None else [self.model, self.ema]
            reducer = GradientReducer(trained, [b for m in modules for b in m.buffers()])
        self.step = self.create_step(optimizer, str(trainer.precision), scaler, reducer)
        return optimizer

    def create_step(
        self,
        optimizer: torch.optim.Optimizer,
        precision: str = "32-true",
        scaler: Any = None,
        reducer: GradientReducer | None = None,
    ) -> TrainStep:
        """Return the step that trains this model by this recipe."""
        recipe = self.recipe
        return TrainStep(
            self.model,
            optimizer,
            rate_factor(recipe, self.steps_per_epoch),
            Objective(
                label_smoothing=recipe.label_smoothing,
                mesa=recipe.mesa,
                clip_grad=recipe.clip_grad,
                micro_batches=self.micro_batches,
                autocast=PRECISION_DTYPES.get(precision),
            ),
            prepare=PrepareImages(self.augment, self.normalize, self.mix),
            ema=self.ema,
            seed=lambda step: step_seed(self.seed, step, self.global_rank),
            scaler=scaler,
            reducer=reducer,
            graph=self.graph,
        )

    def on_train_start(self) -> None:
        """Go on with the optimiser's state of a checkpoint, if there was one."""
        self.step.restored()

    def release(self) -> None:
        """Let go of what steps hold on the device besides weights; before processes part."""
        if isinstance(getattr(self, "step", None), TrainStep):
            self.step.release()
        for forward in self._forwards:
            forward.release()

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Take a step and return its loss; nothing here waits for the device."""
        images, labels, samples = batch
        # Lightning's context of lower precision is for the forward pass, which has its own.
        with torch.autocast(self.device.type, enabled=False):
            loss = self.step(images, labels, samples, self.global_step, mesa=self.mesa_is_on)
        count_step(self.trainer)
        return loss

    @property
    def mesa_is_on(self) -> bool:
        """Whether this epoch learns from the averaged weights, too."""
        recipe = self.recipe
        started = self.current_epoch >= int(recipe.mesa_start * recipe.epochs)
        return recipe.mesa > 0 and started

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.counts.reset()
        self.ema_counts.reset()
        if not self._forwards:
            precision = str(self.trainer.precision)
            self._forwards = [
                Forward(model, self.normalize, self.device, precision, graph=self.graph)
                for model in [self.model, *([] if self.ema is None else [self.ema.module])]
            ]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the correct predictions of one batch."""
        images, labels = batch
        for forward, counts in zip(self._forwards, (self.counts, self.ema_counts), strict=False):
            counts.add(forward(images), labels)

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the weights are: model, data, recipe, classes."""
        checkpoint["semabench"] = self.describe
        for state in checkpoint.get("optimizer_states", []):
            for group, rate in zip(state["param_groups"], self.step.rates, strict=True):
                group["lr"] = rate  # which on a GPU is a tensor there

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read checkpoints of earlier versions, too."""
        bring_up_to_date(checkpoint)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def monitor(self) -> str:
        """The metric by which the best checkpoint is chosen."""
        return "val/top1" if self.ema is None else "val_ema/top1"
