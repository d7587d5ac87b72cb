"""One training, lean: pictures drawn on the device, and on a GPU whole steps as CUDA graphs.

Steps come in bursts of one size. The first burst of a size runs eagerly, which is what warms it up;
the second is captured, and replayed from then on. A burst draws its pictures, does forward and
backward pass, clips, and steps the optimiser; learning rate and position are tensors, so that
nothing is asked of the host.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from semabench.config.schema import RecipeConfig
from semabench.data.normalize import Normalize
from semabench.data.procedural.draw import draw
from semabench.data.procedural.tasks import CELL
from semabench.errors import SemabenchError
from semabench.study.probe import build_probe
from semabench.study.spec import Training
from semabench.training.optim import create_optimizer, learning_rate

BURST = 8  # steps


@dataclass(frozen=True)
class Trained:
    """A model after its training, in eval mode, with the pictures' normalisation in front."""

    model: nn.Module
    loss: float  # mean over the last tenth of the steps
    seconds: float


def train(training: Training, device: torch.device, *, graphs: bool = True) -> Trained:
    """Train one model.

    Args:
        training: what to train, and how.
        device: where.
        graphs: replay CUDA graphs; False takes every step eagerly, as a CPU does.

    Raises:
        SemabenchError: the loss is not finite at the end.
    """
    model = build_probe(training).to(device).train()
    # TF32 rounds matrix products of the training; all sums stay in float32, and so do tests.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    normalize = Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD).to(device)
    steps = _Steps(training, nn.Sequential(normalize, model))
    begin = time.monotonic()
    sizes = [resolution // CELL for resolution in training.train_resolutions]
    captures = graphs and device.type == "cuda"
    bursts = {size: _Burst(steps, size, captures) for size in sizes}
    done = 0
    while done < training.recipe.steps:
        length = min(BURST, training.recipe.steps - done)
        bursts[sizes[done // BURST % len(sizes)]].run(length)
        done += length
    loss = float(steps.losses[-max(1, len(steps.losses) // 10) :].mean())
    if not math.isfinite(loss):
        raise SemabenchError(f"{training.title}: the loss is not finite.")
    return Trained(steps.model.eval(), loss, time.monotonic() - begin)


class _Steps:
    """Model, optimiser and position of a training; ``advance`` is all that a graph holds."""

    def __init__(self, training: Training, model: nn.Module) -> None:
        self.training = training
        self.task = training.drawn()
        self.model = model
        self.device = next(model.parameters()).device
        recipe = training.recipe
        schedule = RecipeConfig(
            name="study",
            epochs=1,
            warmup_epochs=min(recipe.warmup_steps / recipe.steps, 1.0),
            lr=recipe.lr,
            min_lr=0.01 * recipe.lr,
            warmup_lr=0.01 * recipe.lr,
            weight_decay=recipe.weight_decay,
        )
        at = learning_rate(schedule, recipe.steps)
        self.rates = torch.tensor([at(step) for step in range(recipe.steps)], device=self.device)
        self.losses = torch.zeros(recipe.steps, device=self.device)
        self.step = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.optimizer = create_optimizer(model[1], schedule, fused=True)  # type: ignore[index]
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(recipe.lr, device=self.device)
            group["capturable"] = self.device.type == "cuda"

    def advance(self, size: int, length: int) -> None:
        """Draw ``length`` batches of one size and take as many steps."""
        batch = self.training.recipe.batch_size
        index = self.step * batch + torch.arange(length * batch, device=self.device)
        images, labels = draw(self.task, size, seed=self.training.seed, epoch=0, index=index)
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            self._step(x, y)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        rate = self.rates[self.step].squeeze()
        for group in self.optimizer.param_groups:
            group["lr"].copy_(rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.training.recipe.clip_grad)
        self.optimizer.step()
        self.losses.index_copy_(0, self.step, loss.detach()[None])
        self.step += 1


class _Burst:
    """Bursts of one size: eager, captured, replayed; or, where that cannot be, always eager."""

    def __init__(self, steps: _Steps, size: int, captures: bool) -> None:
        self.steps = steps
        self.size = size
        self.captures = captures
        self.warm = False
        self.graph: torch.cuda.CUDAGraph | None = None

    def run(self, length: int) -> None:
        """Take ``length`` steps; the last burst of a training may be a short one."""
        if self.captures and self.warm and self.graph is None and length == BURST:
            self._capture()
        if self.graph is not None and length == BURST:
            self.graph.replay()
        elif self.captures and not self.warm:
            self._beside(length)
            self.warm = True
        else:
            self.steps.advance(self.size, length)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        self.steps.optimizer.zero_grad(set_to_none=True)
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.steps.advance(self.size, BURST)
        except RuntimeError as error:
            print(f"{self.steps.training.title}: no CUDA graph, eager steps: {error}", flush=True)
            self.captures = False
            return
        self.graph = graph

    def _beside(self, length: int) -> None:
        """Run eagerly on a stream of its own, as what is captured later must have been once."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.steps.advance(self.size, length)
        torch.cuda.current_stream().wait_stream(stream)
