"""The train step: from a batch of uint8 images to changed weights. Plain torch, one object.

Training, the study and the measure of cost all take their steps with it. It waits for nothing. On
a GPU a step is launches of fixed shape on buffers that stay where they are, so that it is recorded
as one CUDA graph and replayed with one launch; on a CPU the same code runs as it stands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from semabench.data.augment.batch import BatchAugment, Normalize
from semabench.data.mixup import Mix
from semabench.ops.tables import missing_for_triton
from semabench.progress import said_if_slow
from semabench.training.graphs import WARMUP, NotRecordedError, launch_aside, record
from semabench.training.reduce import GradientReducer

log = logging.getLogger(__name__)


class Prepare(Protocol):
    """What becomes of a batch before the model sees it."""

    def __call__(self, images: Tensor, labels: Tensor, samples: Any) -> tuple[Tensor, Tensor]:
        """Return the model's input, float (B, 3, R, R), and the targets of the loss.

        Args:
            images: as the loader has them: uint8 (B, 3, R, R).
            labels: int64 (B,).
            samples: all that their draws depend on.
        """

    def fixed(self, images: Tensor, samples: Any) -> FixedPrepare:
        """Return the same in launches of fixed shape, for batches like this one."""


class FixedPrepare(Protocol):
    """Preparation that a CUDA graph can hold: the host draws first, then launches alone follow."""

    def load(self, samples: Any) -> None:
        """Draw for the next batch, and send what has been drawn to the device."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the model's input and targets, as drawn."""


@dataclass(frozen=True)
class PrepareImages:
    """Augments, normalises, erases and mixes; mixing draws from torch's CPU generator."""

    augment: BatchAugment
    normalize: Normalize
    mix: Mix

    def __call__(self, images: Tensor, labels: Tensor, samples: Any) -> tuple[Tensor, Tensor]:
        """Prepare a batch, on any device."""
        images = self.normalize(self.augment.change(images, samples))
        return self.mix(self.augment.erase(images, samples), labels)

    def fixed(self, images: Tensor, samples: Any) -> FixedPrepare:
        """Return the same in Triton's kernels."""
        from semabench.data.augment.static import StaticAugment  # Triton: where it is needed

        batch, _, _, resolution = images.shape
        parts = self.augment, self.normalize, self.mix
        return StaticAugment(*parts, batch, resolution, images.device)


@dataclass(frozen=True)
class Objective:
    """What is minimised, and how gradients are used.

    Attributes:
        label_smoothing: of the cross-entropy.
        mesa: weight of the cross-entropy with what the averaged weights predict (Du et al. 2022,
            arXiv 2205.14083, in the form of MILA's code: no temperature, no smoothing).
        clip_grad: largest norm of all gradients; None: any.
        micro_batches: equal parts in which a batch goes through the model, one after another. All
            draws but the model's own (drop path, dropout) are the batch's, whatever the parts.
        autocast: type of matrix products; None: as the weights.
    """

    label_smoothing: float = 0.0
    mesa: float = 0.0
    clip_grad: float | None = None
    micro_batches: int = 1
    autocast: torch.dtype | None = None


class TrainStep:
    """Takes optimiser steps.

    Args:
        model: images to logits (B, num_classes), in training mode, on its device.
        optimizer: over its parameters. On a GPU its rates become tensors there.
        rate: optimiser step, counted from 0, to the factor of every group's rate.
        objective: what to minimise.
        prepare: from uint8 images to the model's input; None: batches come prepared.
        ema: averaged weights to update; required with MESA.
        seed: of a step, (step) → seed of torch's generators; None leaves them alone.
        scaler: of gradients, in float16.
        reducer: averages gradients over processes.
        graph: record steps as CUDA graphs. What cannot be recorded runs without, with a warning.

    Attributes:
        loss: of the last step, on the device: the mean over its batch, MESA included.
        mesa_term: MESA's share of it; None where it is off.
        rates: of each group in the last step, as a checkpoint stores them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        objective: Objective,
        *,
        prepare: Prepare | None = None,
        ema: ModelEmaV3 | None = None,
        seed: Callable[[int], int] | None = None,
        scaler: Any = None,
        reducer: GradientReducer | None = None,
        graph: bool = False,
    ) -> None:
        self.model, self.ema = model, ema
        self.optimizer, self.rate = optimizer, rate
        self.objective, self.prepare = objective, prepare
        self.seed, self.scaler, self.reducer = seed, scaler, reducer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device
        self.graph = graph and self.device.type == "cuda" and self._can_be_recorded()
        self.no_graph = ""  # why, where recording failed
        self.loss = torch.zeros((), device=self.device)
        self.mesa_term: Tensor | None = None
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._peaks = list(self.rates)
        self._fused = optimizer.param_groups[0].get("fused")
        self._mesa_term = torch.zeros((), device=self.device)
        self._rates_on_device: Tensor | None = None
        if self.device.type == "cuda" and scaler is None:
            self._rates_on_device = torch.zeros(len(self._peaks), device=self.device)
        self._taken = 0  # of the run, this step included
        self._programs: dict[Any, _Program] = {}
        self._pool: Any = None
        self.restored()

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        samples: Any,
        step: int,
        *,
        kind: Hashable = None,
        mesa: bool = False,
    ) -> Tensor:
        """Take step number ``step``, counted from 0, and return its loss on the device.

        Args:
            images: uint8 (B, 3, R, R) channels-last; or prepared, float.
            labels: int64 (B,); or prepared targets.
            samples: of the batch, for its preparation.
            step: whose rates and draws are taken.
            kind: what its preparation depends on besides shapes; one graph is recorded for each.
            mesa: whether this step learns from the averaged weights, too.
        """
        if self.seed is not None:
            torch.manual_seed(self.seed(step))
        self._set_rates(step)
        self._taken = step + 1
        self.mesa_term = self._mesa_term if mesa else None
        if not self.graph:
            if self.prepare is not None:
                images, labels = self.prepare(images, labels, samples)
            self._learn(images, labels, mesa)
            return self.loss
        key = images.shape, labels.shape, kind, mesa
        if key not in self._programs:
            self._programs[key] = _Program(self, images, labels, samples, mesa)
            with said_if_slow(f"first step of {images.shape[-1]} px: choosing algorithms"):
                self._programs[key].run(images, labels, samples)
                torch.cuda.synchronize(self.device)
            return self.loss
        self._programs[key].run(images, labels, samples)
        return self.loss

    def restored(self) -> None:
        """Take over an optimiser's state that has been loaded in place of its own."""
        cuda = self.device.type == "cuda"
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate
            group["capturable"] = cuda and self.scaler is None
            group["fused"] = self._fused
        self.release()

    def release(self) -> None:
        """Let the recorded graphs go: while one holds an all-reduce, NCCL does not shut down."""
        if self._programs and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._programs.clear()
        self._pool = None

    def _can_be_recorded(self) -> bool:
        reason = ""
        if self.scaler is not None:
            reason = "float16's scale of gradients is the host's to ask for"
        elif any(p.dtype != torch.float32 for p in self.parameters):
            reason = "the weights are not float32"
        elif self.prepare is not None and (lacks := missing_for_triton()):
            reason = f"augmentation in a graph needs {lacks}, which is not installed"
        if reason:
            log.warning("steps run without a CUDA graph: %s.", reason)
        return not reason

    def _set_rates(self, step: int) -> None:
        factor = self.rate(step)
        self.rates = [peak * factor for peak in self._peaks]
        if self._rates_on_device is None:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate
            return
        host = torch.tensor(self.rates, dtype=torch.float32).pin_memory()
        self._rates_on_device.copy_(host, non_blocking=True)
        for k, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self._rates_on_device[k]

    def _learn(self, images: Tensor, targets: Tensor, mesa: bool) -> None:
        """Forward, backward, clip, step, average; no draw and no number of the host's in it."""
        n = self.objective.micro_batches
        self.optimizer.zero_grad(set_to_none=True)
        if self.reducer is not None:
            self.reducer.sync_buffers()
        pairs = list(zip(images.chunk(n), targets.chunk(n), strict=True))
        total, mesa_total = None, None
        for k, (x, y) in enumerate(pairs):
            loss, term = self._loss(x, y, mesa)
            if self.reducer is not None and k == n - 1:
                self.reducer.begin()
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            loss = loss.detach()
            total = loss if total is None else total + loss
            if term is not None:
                mesa_total = term if mesa_total is None else mesa_total + term
        if self.reducer is not None:
            self.reducer.finish()
        self._update()
        assert total is not None
        self.loss.copy_(total)
        if mesa_total is not None:
            self._mesa_term.copy_(mesa_total)

    def _loss(self, images: Tensor, targets: Tensor, mesa: bool) -> tuple[Tensor, Tensor | None]:
        """Return a micro-batch's share of the batch's mean loss, and of its MESA term."""
        objective = self.objective
        with self._autocast():
            logits = self.model(images)
            loss = F.cross_entropy(logits, targets, label_smoothing=objective.label_smoothing)
            if not mesa:
                return loss / objective.micro_batches, None
            assert self.ema is not None
            with torch.no_grad():
                wanted = self.ema.module(images).float().softmax(dim=-1)
            term = objective.mesa * F.cross_entropy(logits, wanted)
            loss = (loss + term) / objective.micro_batches
            return loss, term.detach() / objective.micro_batches

    def _autocast(self) -> Any:
        kind = self.objective.autocast
        return nullcontext() if kind is None else torch.autocast(self.device.type, dtype=kind)

    def _update(self) -> None:
        clip = self.objective.clip_grad
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.ema is not None:
            # The first step's average is its weights; from the second on the decay is constant.
            self.ema.update(self.model, step=self._taken)


class _Program:
    """Steps of one shape: the first few launch by launch, which warms up; then one graph.

    Every one of them counts: they train alike.
    """

    def __init__(
        self, step: TrainStep, images: Tensor, labels: Tensor, samples: Any, mesa: bool
    ) -> None:
        self.step, self.mesa = step, mesa
        self.images, self.labels = torch.empty_like(images), torch.empty_like(labels)
        self.prepare = None if step.prepare is None else step.prepare.fixed(images, samples)
        self.taken = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def run(self, images: Tensor, labels: Tensor, samples: Any) -> None:
        """Take one step."""
        if self.prepare is not None:
            self.prepare.load(samples)
        self.images.copy_(images, non_blocking=True)
        self.labels.copy_(labels, non_blocking=True)
        if self.graph is None and self.step.graph and self.taken >= WARMUP:
            self._record()
        if self.graph is not None:
            self.graph.replay()
            return
        self.taken += 1
        launch_aside(self._launch, self.step.device)

    def _launch(self) -> None:
        images, targets = self.images, self.labels
        if self.prepare is not None:
            images, targets = self.prepare(images, targets)
        self.step._learn(images, targets, self.mesa)

    def _record(self) -> None:
        step = self.step
        step.optimizer.zero_grad(set_to_none=True)  # made anew in the graph's own memory
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        try:
            self.graph, _ = record(self._launch, step.device, step._pool)
        except NotRecordedError as error:
            log.warning("steps run without a CUDA graph: %s.", error)
            step.graph, step.no_graph = False, str(error)
        else:
            step._pool = self.graph.pool()


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return 63 bits that no two (seed, step, rank) are likely to share, mixed as splitmix64."""
    z = (seed * 0x9E3779B97F4A7C15 + (step << 16) + rank + 1) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) >> 1
