"""Time training steps as `train.py` makes them, on one device or many.

    PYTHONPATH=src torchrun --standalone --nproc-per-node N benchmarks/ddp.py [--data PACKED]

Lightning's loop with the recipe `common` (augmentation, mixing, EMA, clipping, fused AdamW) over
one batch of random pictures a rank, held in pinned memory (no loader), and, with --data, over
PACKED/train.beton through the FFCV loader. Weak scaling: --batch is a rank's. Without torchrun: one
process, no DDP. Efficiency at N devices: img/s at N over N × img/s of one process.

Prints images per second over all ranks (median of windows), the bytes of gradients that DDP
reduces in a step, the time of an all-reduce of as many bytes by itself, and on a GPU ``launch_ms``:
how long the host is busy with a step that begins on an idle GPU. Where that is close to
``step_ms``, the host may be what is measured, not the GPU. It is an upper bound: a host that has
filled the queue of launches waits, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from semabench.commands import CONF
from semabench.config.schema import DataConfig, RecipeConfig
from semabench.data.augment.batch import pixel_augment
from semabench.data.draws import Samples
from semabench.data.loader import create_train_loader
from semabench.models import build_model
from semabench.models.compiled import compile_model
from semabench.processes import global_rank
from semabench.results.record import git_commit
from semabench.training.device import choose_accelerator, choose_precision
from semabench.training.module import Classifier
from semabench.training.trainer import bare_trainer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 1000
EXECUTIONS = ("eager", "compiled", "graph", "compiled-graph")
"""graph: a step is one CUDA graph, as trainer.graph=true has it; the first two go by launches."""


class Synthetic:
    """The same random batch, again and again, as every loader gives it."""

    def __init__(self, batch: int, resolution: int, steps: int) -> None:
        pixels = torch.randint(0, 256, (batch, resolution, resolution, 3), dtype=torch.uint8)
        pixels = pixels.pin_memory() if torch.cuda.is_available() else pixels
        self.images = pixels.permute(0, 3, 1, 2)
        self.labels = torch.arange(batch) % CLASSES
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Samples]]:
        for step in range(self.steps):
            yield self.images, self.labels, Samples(step, np.arange(len(self.labels)))


class Windows(L.Callback):
    """Times windows of steps, waited for at both ends, and the launching of each window's first."""

    def __init__(self, steps: int, warmup: int) -> None:
        self.steps, self.warmup = steps, warmup
        self.seconds: list[float] = []
        self.launching: list[float] = []
        self._start = self._step_start = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Read the clock when the batch is there."""
        self._step_start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Read the clock at the end of the warm-up and of each window."""
        done = trainer.global_step - self.warmup
        if done > 0 and done % self.steps == 1:
            self.launching.append(time.perf_counter() - self._step_start)
        if done < 0 or done % self.steps:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if done:
            self.seconds.append((now - self._start) / self.steps)
        self._start = now


def recipe_for(global_batch: int) -> RecipeConfig:
    """Return the recipe `common` at this global batch."""
    with initialize_config_dir(CONF, version_base="1.3"):
        told = compose("train", overrides=["recipe=common"])
    recipe = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RecipeConfig), told.recipe))
    assert isinstance(recipe, RecipeConfig)
    recipe.batch_size = global_batch
    return recipe


def all_reduce_seconds(count: int, device: torch.device) -> float:
    """Return the median seconds of an all-reduce of ``count`` float32."""
    gradients, spent = torch.zeros(count, device=device), []
    for _ in range(12):
        torch.distributed.barrier()
        start = time.perf_counter()
        torch.distributed.all_reduce(gradients)
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent[2:])


def training_of(
    name: str, execution: str, recipe: RecipeConfig, resolution: int, steps: int
) -> Classifier:
    """Return a model under its recipe, told how to be executed."""
    model = build_model(name, num_classes=CLASSES, resolution=resolution, options={})
    model.to(memory_format=torch.channels_last)
    module = Classifier(
        model, recipe, num_classes=CLASSES, steps_per_epoch=steps, mean=MEAN, std=STD, seed=0,
        describe={}, pixels=pixel_augment(recipe, seed=0, mean=MEAN, interpolation="bicubic"),
        graph="graph" in execution,
    )  # fmt: skip
    torch._dynamo.reset()  # or an earlier execution's code would do for this one
    if "compiled" in execution:  # as trainer.compile does
        compile_model(model)
    return module


def measure(
    name: str, execution: str, data: Path | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Time one model; every rank returns the same numbers but its own clock's."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = max(1, len(os.sched_getaffinity(0)) // local)
    distributed = "RANK" in os.environ
    gpu = torch.cuda.is_available()
    recipe = recipe_for(options.batch * world)
    total = options.warmup + options.windows * options.steps
    module = training_of(name, execution, recipe, options.resolution, total)
    loader: Any = Synthetic(options.batch, options.resolution, total)
    if data:
        loader = create_train_loader(
            DataConfig("made", str(data), resolution=options.resolution),
            batch_size=options.batch, seed=0, rank=global_rank(), world_size=world,
            num_workers=cores,
        )  # fmt: skip
    windows = Windows(options.steps, options.warmup)
    accelerator = choose_accelerator("auto")
    trainer = bare_trainer(
        accelerator, choose_precision(None, accelerator), ddp=distributed, devices=local,
        num_nodes=world // local, max_steps=total, callbacks=[windows], logger=False,
        enable_progress_bar=False,
    )  # fmt: skip
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(module, loader)
    module.release()
    count = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
    seconds = statistics.median(windows.seconds)
    device = trainer.strategy.root_device  # the module's own is the CPU by now
    return {
        "model": name,
        "execution": execution,
        "data": "ffcv" if data else "synthetic",
        "ddp": distributed,
        "devices": world,
        "batch_per_device": options.batch,
        "resolution": options.resolution,
        "step_ms": 1e3 * seconds,
        "step_ms_windows": [1e3 * s for s in windows.seconds],
        "launch_ms": 1e3 * statistics.median(windows.launching) if gpu else None,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if gpu else None,
        "images_per_second": options.batch * world / seconds,
        "gradient_bytes": 4 * count,
        "all_reduce_ms": 1e3 * all_reduce_seconds(count, device) if distributed else None,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "cores_per_device": cores,
        "torch": torch.__version__,
        "commit": git_commit(),
    }


def main() -> None:
    """Parse the command line, run, print and append the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["sema_tiny"])
    parser.add_argument("--executions", nargs="+", default=["eager"], choices=EXECUTIONS)
    parser.add_argument("--data", type=Path, help="folder of train.beton; none: synthetic alone")
    parser.add_argument("--batch", type=int, default=128, help="of each device")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--steps", type=int, default=20, help="of a window")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=10, help="steps that are not timed")
    parser.add_argument("--out", type=Path, help="folder for ddp.jsonl")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps: 2 or more, so that the launching of one can be told from a window")
    if options.warmup < 1:
        parser.error("--warmup: 1 or more; the first window begins where it ends")
    sources = [None, options.data] if options.data else [None]
    for execution, name, data in product(options.executions, options.models, sources):
        torch.manual_seed(0)
        row = measure(name, execution, data, options)
        if os.environ.get("RANK", "0") != "0":
            continue
        line = json.dumps(row)
        print(line, flush=True)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            with open(options.out / "ddp.jsonl", "a") as file:
                file.write(line + "\n")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
