"""Logits without gradients: validation and evaluation, on a GPU as one CUDA graph a shape."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from semabench.progress import said_if_slow
from semabench.training.device import autocast
from semabench.training.graphs import WARMUP, NotRecordedError, launch_aside, record

log = logging.getLogger(__name__)


class Forward:
    """Goes forward, with the numbers of the same launches one by one.

    The weights may change between two calls, but must stay where they are.

    Args:
        model: prepared images (B, 3, R, R) to logits, in eval mode.
        prepare: of a batch as the loader has it, uint8 (B, 3, R, R), to the model's input.
        device: of the model.
        precision: Lightning's name of it.
        graph: record a graph for each shape, on a GPU. What cannot be recorded runs without, with
            a warning.

    Attributes:
        graph: whether graphs are recorded; false from the first that cannot be.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        prepare: Callable[[Tensor], Tensor],
        device: torch.device,
        precision: str,
        *,
        graph: bool = True,
    ) -> None:
        self.model, self.prepare = model, prepare
        self.device, self.precision = device, precision
        self.graph = graph and device.type == "cuda"
        self.no_graph = ""  # why, where recording failed
        self._seen: set[torch.Size] = set()
        self._taken: dict[torch.Size, int] = {}
        self._recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._pool: Any = None

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits of a batch; they are overwritten by the next call."""
        if not self.graph:
            return self._launch(images)
        shape = images.shape
        if shape not in self._recorded:
            self._taken[shape] = self._taken.get(shape, 0) + 1
            if self._taken[shape] <= WARMUP or not self._record(images):
                return launch_aside(lambda: self._launch(images), self.device)
        graph, static, logits = self._recorded[shape]
        static.copy_(images, non_blocking=True)
        graph.replay()
        return logits

    def release(self) -> None:
        """Let the recorded graphs go."""
        if self._recorded:
            torch.cuda.synchronize(self.device)
        self._recorded.clear()
        self._taken.clear()
        self._pool = None

    def _launch(self, images: Tensor) -> Tensor:
        if images.shape in self._seen:
            return self._go(images)
        self._seen.add(images.shape)
        with said_if_slow(f"first batch of {images.shape[-1]} px without gradients: a while"):
            return self._go(images)

    def _go(self, images: Tensor) -> Tensor:
        # In a context of its own, whatever Lightning's is, which keeps no cast weights: a graph
        # would hold those of its recording.
        lowered = autocast(self.device, self.precision, keep=False)
        with torch.autocast(self.device.type, enabled=False), lowered:
            return self.model(self.prepare(images))

    def _record(self, images: Tensor) -> bool:
        static = images.clone()
        try:
            graph, logits = record(lambda: self._launch(static), self.device, self._pool)
        except NotRecordedError as error:
            log.warning("evaluation runs without a CUDA graph: %s.", error)
            self.graph, self.no_graph = False, str(error)
            return False
        self._pool = graph.pool()
        self._recorded[images.shape] = graph, static, logits
        return True
