"""torch.compile: when a run uses it, and a trial of it before the first step."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from semabench.config.schema import TrainConfig
from semabench.errors import SemabenchError
from semabench.models.compiled import compile_model, leave_uncompiled
from semabench.progress import said_if_slow
from semabench.training.module import Classifier

log = logging.getLogger(__name__)


def wants_compile(config: TrainConfig, accelerator: str, steps: int) -> bool:
    """Tell whether a run is compiled: as asked for, or, if nothing was, where it pays.

    It pays on a GPU, for a model that gains by it (``model.compiles``), in a run of so many
    optimiser steps that they win back the minute or two of compiling.
    """
    if config.trainer.compile is not None:
        return config.trainer.compile
    long = steps >= config.trainer.compile_min_steps
    return accelerator == "gpu" and config.model.compiles and long


class Compile(Callback):
    """Compiles the model, and its averaged copy where MESA runs it at every step.

    Every resolution is compiled by itself, in a trial on an empty batch that leaves no trace: no
    gradient, no statistics. If that fails the run goes on without, with a warning; a run that was
    told to compile stops.

    Args:
        required: whether the user asked for it.
    """

    def __init__(self, required: bool) -> None:
        self.required = required
        self.tried: set[int] = set()
        self.failed = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compile for the epoch that the run starts or resumes in.

        Raises:
            SemabenchError: it fails, and was asked for.
        """
        assert isinstance(pl_module, Classifier)
        for model in self._models(pl_module):
            compile_model(model)
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compile for this epoch's resolutions, those that are new.

        Raises:
            SemabenchError: as ``on_train_start``.
        """
        assert isinstance(pl_module, Classifier)
        sizes: Sequence[int] = trainer.datamodule.sizes.in_epoch(trainer.current_epoch)  # type: ignore[attr-defined]
        for resolution in sizes:
            if not self.failed and resolution not in self.tried:
                self.tried.add(resolution)
                self._compile(trainer, pl_module, resolution)

    def _compile(self, trainer: L.Trainer, pl_module: Classifier, resolution: int) -> None:
        started = time.perf_counter()
        with said_if_slow(f"compiling for {resolution} px: a minute or two"):
            error = _failure(trainer, pl_module, resolution)
        mine = torch.tensor(int(error is not None), device=trainer.strategy.root_device)
        self.failed = bool(trainer.strategy.reduce(mine, reduce_op="max"))
        if not self.failed:
            if trainer.is_global_zero:
                seconds = time.perf_counter() - started
                print(f"compiled for {resolution} px in {seconds:.0f} s", flush=True)
            return
        reason = _reason(error) if error is not None else "on another process"
        if self.required:
            raise SemabenchError(
                f"torch.compile fails for {resolution} px ({reason}): trainer.compile=false "
                "trains without it."
            ) from error
        for model in self._models(pl_module):
            leave_uncompiled(model)
        log.warning(
            "torch.compile fails for %d px (%s): training goes on without it, slower.",
            resolution,
            reason,
        )

    @staticmethod
    def _models(module: Classifier) -> list[nn.Module]:
        teacher = module.ema is not None and module.recipe.mesa > 0
        return [module.model, module.ema.module] if teacher else [module.model]  # type: ignore[union-attr]


def _failure(trainer: L.Trainer, module: Classifier, resolution: int) -> Exception | None:
    """Go forward and backward as a step does, leaving no trace; return what fails."""
    model = module.model
    part = module.recipe.batch_size // trainer.world_size // module.micro_batches
    pixels = torch.zeros((part, 3, resolution, resolution), dtype=torch.uint8, device=module.device)
    images = module.normalize(pixels.to(memory_format=torch.channels_last))
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with trainer.precision_plugin.train_step_context():
            loss = model(images).float().square().mean()
            if module.recipe.mesa > 0 and module.ema is not None:
                with torch.no_grad():
                    module.ema.module(images)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        torch.autograd.grad(loss, weights, allow_unused=True)
    except Exception as error:  # compilers fail in any way
        return error
    finally:
        with torch.no_grad():
            for buffer, before in statistics:
                buffer.copy_(before)
    return None


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The first of the compiler's lines only names it.
    return " ".join(lines[:2])[:200]
