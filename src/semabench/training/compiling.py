"""torch.compile: when a run uses it, and a trial of it before the first step."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from semabench.config.schema import TrainConfig
from semabench.errors import SemabenchError
from semabench.training.module import Classifier

log = logging.getLogger(__name__)


def wants_compile(config: TrainConfig, accelerator: str, steps: int) -> bool:
    """Tell whether a run is compiled: as asked for, or, if nothing was, where it pays.

    It pays on a GPU, for a model that gains by it (``model.compiles``), in a run of so many
    optimiser steps that they win back the minute or two of compiling. CUDA graphs are made of
    compiled steps: who asks for them asks for compiling.
    """
    if config.trainer.compile is not None or config.trainer.cuda_graphs:
        return config.trainer.compile is not False
    long = steps >= config.trainer.compile_min_steps
    return accelerator == "gpu" and config.model.compiles and long


class Compile(Callback):
    """Compiles the model, and its averaged copy where MESA runs it at every step.

    Every resolution is compiled by itself, in a trial on an empty batch that leaves no trace: no
    gradient, no statistics. If that fails the run goes on without, with a warning; a run that was
    told to compile stops.

    Args:
        required: whether the user asked for it.
        cuda_graphs: whether passes are recorded, and replayed with one launch each, where
            launching thousands of kernels takes longer than running them.
    """

    def __init__(self, required: bool, cuda_graphs: bool = False) -> None:
        self.required = required
        self.cuda_graphs = cuda_graphs
        self.tried: set[int] = set()
        self.failed = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compile for the epoch that the run starts or resumes in.

        Raises:
            SemabenchError: it fails, and was asked for.
        """
        assert isinstance(pl_module, Classifier)
        torch._dynamo.config.recompile_limit = 64  # sizes, modes: beyond it, silently eager
        for model in self._models(pl_module):
            model.compile(dynamic=False, mode="reduce-overhead" if self.cuda_graphs else None)
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compile for this epoch's resolution, if it is new.

        Raises:
            SemabenchError: as ``on_train_start``.
        """
        assert isinstance(pl_module, Classifier)
        resolution: int = trainer.datamodule.resolution_at(trainer.current_epoch)  # type: ignore[attr-defined]
        if self.failed or resolution in self.tried:
            return
        self.tried.add(resolution)
        started = time.perf_counter()
        error = self._failure(trainer, pl_module, resolution)
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
                f"torch.compile fails for {resolution} px ({reason}): {self._without()} trains "
                "without it."
            ) from error
        for model in self._models(pl_module):
            model._compiled_call_impl = None
        log.warning(
            "torch.compile fails for %d px (%s): training goes on without it, slower.",
            resolution,
            reason,
        )

    def _failure(self, trainer: L.Trainer, module: Classifier, resolution: int) -> Exception | None:
        """Try a step; return what fails.

        What cannot be recorded fails, too, instead of running without a graph. The first pass
        only warms up; the second is recorded.
        """
        strict = torch._inductor.config.patch({"triton.cudagraph_or_error": self.cuda_graphs})
        try:
            with strict:
                for _ in range(2 if self.cuda_graphs else 1):
                    _try_step(trainer, module, resolution)
        except Exception as error:  # compilers fail in any way
            return error
        return None

    def _without(self) -> str:
        return "trainer.cuda_graphs=false" if self.cuda_graphs else "trainer.compile=false"

    @staticmethod
    def _models(module: Classifier) -> list[nn.Module]:
        teacher = module.ema is not None and module.recipe.mesa > 0
        return [module.model, module.ema.module] if teacher else [module.model]  # type: ignore[union-attr]


def _try_step(trainer: L.Trainer, module: Classifier, resolution: int) -> None:
    """Go forward and backward through the model as a training step does, leaving no trace."""
    model = module.model
    world_size = trainer.world_size
    size = module.recipe.batch_size // world_size // module.parts, 3, resolution, resolution
    pixels = torch.zeros(size, dtype=torch.uint8, device=module.device)
    images = module.normalize(pixels.to(memory_format=torch.channels_last))
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with trainer.precision_plugin.train_step_context(), _as_ddp_does(trainer):
            loss = model(images).float().square().mean()
            if module.recipe.mesa > 0 and module.ema is not None:
                with torch.no_grad():
                    module.ema.module(images)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        torch.autograd.grad(loss, weights, allow_unused=True)  # no hook of DDP's sees it
    finally:
        with torch.no_grad():
            for buffer, before in statistics:
                buffer.copy_(before)


def _as_ddp_does(trainer: L.Trainer) -> AbstractContextManager:
    """Return the context in which DDP runs: there graphs end where a bucket of gradients does."""
    inside = getattr(trainer.strategy.model, "_inside_ddp_forward", None)
    return nullcontext() if inside is None else inside()


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The first of the compiler's lines only names it.
    return " ".join(lines[:2])[:200]
