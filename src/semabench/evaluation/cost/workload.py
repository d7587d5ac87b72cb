"""One model at one resolution, the steps of it that are timed, and the power they take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from semabench.data.augment.batch import Normalize
from semabench.errors import SemabenchError, first_line
from semabench.evaluation.cost.meters import PowerMeter, busy_milliseconds, ran_out_of_memory
from semabench.evaluation.cost.schema import EXPORTED, CostModel
from semabench.models import backend_name, build_model
from semabench.models.compiled import compile_model, leave_uncompiled
from semabench.models.export_file import load_export
from semabench.training.device import PRECISION_DTYPES, peak_memory_mib, reset_peak_memory
from semabench.training.forward import Forward
from semabench.training.graphs import WARMUP as GRAPH_WARMUP
from semabench.training.step import Objective, TrainStep

WARMUP = 2  # first steps of all, not timed: they choose algorithms and fill caches
SETTLE = 1  # before each window: allocates again what was given back to the peers
BUSY_STEPS = 3  # over which the device's work is taken


@dataclass(frozen=True)
class Setting:
    """What all workers share.

    Attributes:
        device: ``cuda`` or ``cpu``.
        precision: Lightning's name of it.
        channels_last: memory format of models and pictures.
        min_steps, min_seconds: what a timed window has at least of both.
    """

    device: str
    precision: str
    channels_last: bool
    min_steps: int
    min_seconds: float


@dataclass(frozen=True)
class Window:
    """What one timed window found.

    Attributes:
        seconds: a step.
        launch_seconds: the host's part of one step that it need not wait for; None on a CPU.
        joules: an image, of the whole device; None where nothing tells.
        peak_memory_mib: of this model's own; see `Workload.window`.
    """

    seconds: float
    launch_seconds: float | None
    joules: float | None
    peak_memory_mib: float | None


class Workload:
    """A model at one resolution, in one mode.

    An inference step is `Forward`, a training step `TrainStep` with cross-entropy and AdamW: what
    eval.py and train.py take. Both take random images that lie normalised on the device.

    Args:
        spec: the model.
        resolution: height and width in pixels.
        mode: ``infer`` or ``train``.
        setting: device, precision, memory format.

    Raises:
        SemabenchError: the model cannot be built.
    """

    def __init__(self, spec: CostModel, resolution: int, mode: str, setting: Setting) -> None:
        self.setting = setting
        self.resolution = resolution
        self.device = torch.device(setting.device)
        model = build_bare(spec, resolution, self.device)
        if setting.precision == "64-true":
            model.double()
        if setting.channels_last:
            model.to(memory_format=torch.channels_last)
        if hasattr(model, "head_dist"):  # timm's distilled models train two heads
            model.register_forward_hook(lambda _module, _images, logits: _first(logits))
        self.model = model.train(mode == "train")
        self.optimizer: torch.optim.AdamW | None = None
        self._exported: dict[tuple[str, int], Callable[[Tensor], Tensor]] = {}
        if mode == "train":
            fused = self.device.type == "cuda" and setting.precision != "16-mixed"
            self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)

    def forward(self, execution: str) -> nn.Module:
        """Return the model, as it is or compiled until the next call."""
        if "compiled" in execution:
            torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it goes eager, unsaid
            compile_model(self.model)
        else:
            leave_uncompiled(self.model)
        return self.model

    def step(self, execution: str, images: Tensor) -> Forward | TrainStep:
        """Return what takes the steps, anew: what it records goes with it."""
        if execution in EXPORTED:
            return self._file(execution, images)
        self._exported.clear()
        model, precision = self.forward(execution), self.setting.precision
        graph = "graph" in execution
        if self.optimizer is None:
            return Forward(model, lambda images: images, self.device, precision, graph=graph)
        return TrainStep(
            model,
            self.optimizer,
            lambda _: 1.0,
            Objective(autocast=PRECISION_DTYPES.get(precision)),
            scaler=torch.amp.GradScaler(self.device.type) if precision == "16-mixed" else None,
            graph=graph,
        )

    def _file(self, execution: str, images: Tensor) -> Forward:
        """Return the model as a file of it runs, written once for batches of this size."""
        key = execution, len(images)
        if key not in self._exported:
            self._exported.clear()  # one at a time: each has weights of its own
            leave_uncompiled(self.model)
            try:
                self._exported[key] = load_export(self.model, images, execution)
            except ModuleNotFoundError as error:
                raise SemabenchError(
                    f"{execution} needs {error.name}: pip install 'semabench[export]'."
                ) from error
            except Exception as error:  # whatever an exporter finds
                if ran_out_of_memory(error):  # a smaller batch may do
                    raise
                raise SemabenchError(f"it cannot be exported: {first_line(error)}") from error
        run, precision = self._exported[key], self.setting.precision
        if execution == "onnx":  # whose runtime takes rows of channels: not to be timed
            images = images.contiguous()
        return Forward(run, lambda _: images, self.device, precision, graph=False)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return random pictures, normalised, and random labels, on the device."""
        shape = (size, 3, self.resolution, self.resolution)
        pictures = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        layout = torch.channels_last if self.setting.channels_last else torch.contiguous_format
        normalize = Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD).to(self.device)
        images = normalize(pictures.to(memory_format=layout))
        if self.setting.precision == "64-true":
            images = images.double()
        classes = int(getattr(self.model, "num_classes", 1000))
        return images, torch.randint(0, classes, (size,), device=self.device)

    def steps(self, execution: str, size: int, count: int) -> float:
        """Run ``count`` steps on one new batch; return the seconds of one, waited for."""
        images, labels = self.batch(size)
        step = self.step(execution, images)
        try:
            if "graph" in execution:
                self._run(step, images, labels, GRAPH_WARMUP + 1)
                self._require_graph(execution, step)
            return self._run(step, images, labels, count)
        finally:
            self._leave(step)

    def window(self, execution: str, size: int, count: int, foreign_bytes: int) -> Window:
        """Time ``count`` steps, after some that are not timed; a graph is recorded in these.

        Where the device counts its energy as many follow, whose power is taken for the timed ones'.

        Args:
            execution: of `schema.EXECUTIONS`.
            size: of a batch.
            count: steps of the window.
            foreign_bytes: on the device in this process, but not of this model: left out of the
                peak. On a CPU the peak is the whole process's.

        Raises:
            SemabenchError: no graph can be recorded.
        """
        images, labels = self.batch(size)
        step = self.step(execution, images)
        run = partial(self._run, step, images, labels)
        try:
            run(GRAPH_WARMUP if "graph" in execution else SETTLE)
            reset_peak_memory(self.device)
            run(1)  # records
            self._require_graph(execution, step)
            launching = self._launch_seconds(step, images, labels)
            seconds = run(count)
            peak = peak_memory_mib(self.device)
            if peak is not None and self.device.type == "cuda":
                peak -= foreign_bytes / 2**20
            watts = self._watts(partial(run, count))
        finally:
            self._leave(step)
        joules = None if watts is None else watts * seconds / size
        return Window(seconds, launching, joules, peak)

    def busy_milliseconds(self, execution: str, size: int) -> float | None:
        """Return how long a GPU works at one step; None on a CPU."""
        if self.device.type != "cuda":
            return None
        images, labels = self.batch(size)
        step = self.step(execution, images)
        run = partial(self._run, step, images, labels)
        try:
            run(GRAPH_WARMUP + 1)
            busy = busy_milliseconds(partial(run, BUSY_STEPS), self.device)
        finally:
            self._leave(step)
        return None if busy is None else busy / BUSY_STEPS

    def _require_graph(self, execution: str, step: Forward | TrainStep) -> None:
        if "graph" not in execution or self.device.type != "cuda" or step.graph:
            return
        if "out of memory" in step.no_graph:  # a smaller batch may do
            raise torch.OutOfMemoryError(step.no_graph)
        raise SemabenchError(f"its step cannot be recorded as a CUDA graph: {step.no_graph}")

    def _leave(self, step: Forward | TrainStep) -> None:
        """Keep nothing between two windows but weights and the optimiser's state."""
        step.release()
        self.model.zero_grad(set_to_none=True)

    def _launch_seconds(
        self, step: Forward | TrainStep, images: Tensor, labels: Tensor
    ) -> float | None:
        """Return how long the host is at a step while the device has nothing else to do."""
        if self.device.type != "cuda":
            return None
        start = time.perf_counter()
        self._take(step, images, labels)
        return time.perf_counter() - start

    def _watts(self, run: Callable[[], object]) -> float | None:
        """Return the device's mean power during ``run``; None where nothing tells."""
        power = PowerMeter(self.device)
        if not power:
            return None
        with power:
            run()
        return power.watts

    def window_steps(self, seconds: float) -> int:
        """Return how many steps of this many seconds each a window needs."""
        wanted = math.ceil(self.setting.min_seconds / max(seconds, 1e-6))
        return max(self.setting.min_steps, wanted)

    def held_bytes(self) -> int:
        """Return what the model and its optimiser hold on the device between two windows."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if self.optimizer is not None:
            for state in self.optimizer.state.values():
                tensors += [value for value in state.values() if isinstance(value, Tensor)]
        storages = [t.untyped_storage() for t in tensors if t.device.type == self.device.type]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def _run(self, step: Forward | TrainStep, images: Tensor, labels: Tensor, count: int) -> float:
        self._wait()
        start = time.perf_counter()
        for _ in range(count):
            self._take(step, images, labels)
        self._wait()
        return (time.perf_counter() - start) / count

    @staticmethod
    def _take(step: Forward | TrainStep, images: Tensor, labels: Tensor) -> None:
        if isinstance(step, Forward):
            step(images)
        else:
            step(images, labels, None, 0)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _first(logits: Any) -> Tensor:
    return logits[0] if isinstance(logits, tuple) else logits


def build_bare(spec: CostModel, resolution: int, device: torch.device) -> nn.Module:
    """Build a model with random weights on ``device``, with as many classes as it has by itself.

    Models whose weights depend on the size of the pictures are built for it. Swin's windows keep
    their size: where it does not divide the grid, timm pads.

    Args:
        spec: the model.
        resolution: height and width in pixels.
        device: where its weights are to be; meta for none.

    Raises:
        SemabenchError: unknown model, mixer or option, or one that cannot take this resolution.
    """
    try:
        with torch.device(device):  # drawing the weights is slow on a CPU
            return _build(spec, resolution)
    except SemabenchError:  # some constructors look at numbers, and need the CPU for that
        return _build(spec, resolution).to(device)


def _build(spec: CostModel, resolution: int) -> nn.Module:
    return build_model(
        spec.name,
        num_classes=None,
        resolution=resolution,
        mixer=spec.mixer,
        fused_attention=spec.fused_attention,
        options=spec.options,
    )


def backend_label(model: nn.Module, device: torch.device) -> str:
    """Return the backend of a model's ops: of our mixers, or of timm's attention.

    timm's attention is ``sdpa`` where it calls torch's fused one, else ``unfused``; a model
    without a choice is ``torch``.
    """
    fused = {
        "sdpa" if module.fused_attn else "unfused"
        for module in model.modules()
        if isinstance(getattr(module, "fused_attn", None), bool)
    }
    return "+".join(sorted(fused)) or backend_name(model, device)
