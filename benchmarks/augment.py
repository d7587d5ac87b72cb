"""Time augmentation on a GPU, and its share of a training step.

    PYTHONPATH=src python3 benchmarks/augment.py [--executions eager compiled graphs] [--out DIR]

A minute on an H200, and two to four more to compile. For batches of 128 and 256 images of 224 px:
medians by CUDA events, over batches that each have their own draws, of RandAugment
(``rand-m9-mstd0.5-inc1``), erasing (0.25) and mixing, the time the host takes to launch them, the
floor by bytes, and the number of operations. Then training steps of --model (bf16, cross-entropy,
fused AdamW) with all of these and with none, in windows that take turns: A B A B.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from semabench.data.augment.batch import BatchAugment, Normalize, PixelAugment
from semabench.data.augment.plan import parse_rand_augment
from semabench.data.draws import Samples
from semabench.data.mixup import Mix

BYTES_PER_MS = 4.25e9  # a large copy on an H200
EXECUTIONS = ("eager", "compiled", "graphs")  # the last: compiled, replayed as CUDA graphs
RESOLUTION = 224
PUBLISHED = PixelAugment(rand_augment=parse_rand_augment("rand-m9-mstd0.5-inc1"))


class Operations(TorchDispatchMode):
    """Counts torch operations that are no views: at least one kernel each, as a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Run one operation."""
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def median(call: Callable[[int], object], repeats: int = 40) -> tuple[float, float]:
    """Return the median milliseconds on the device, and those until the call returned.

    The device is kept busy beforehand, as in training, so that launching overlaps with it.
    """
    for number in range(5):
        call(number)
    device, host = [], []
    for number in range(repeats):
        torch.cuda.synchronize()
        torch.cuda._sleep(20_000_000)  # about 10 ms
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        began = time.perf_counter()
        call(number)
        host.append(1000 * (time.perf_counter() - began))
        end.record()
        torch.cuda.synchronize()
        device.append(start.elapsed_time(end))
    return statistics.median(device), statistics.median(host)


def floors(batch: int) -> dict[str, float]:
    """Least milliseconds by bytes, if each changed value is read and written once a step."""
    pixels = batch * 3 * RESOLUTION**2
    return {
        "randaugment": 2 * pixels * (1 + 2 * 0.5) / BYTES_PER_MS,  # a copy, half of it twice
        "erasing": 4 * 0.25 * 0.17 * pixels / BYTES_PER_MS,
        "mixing": 3 * 4 * pixels / BYTES_PER_MS,
    }


def augmentation(batch: int) -> dict:
    """Time the parts by themselves."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, RESOLUTION, RESOLUTION, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).cuda()
    images = images.permute(0, 3, 1, 2)
    labels = torch.arange(batch, device="cuda") % 1000
    model = BatchAugment(PUBLISHED, 0.25, seed=0).cuda()
    mix = Mix(1000, mixup=0.8, cutmix=1.0, prob=1.0, switch_prob=0.5)
    floats = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).cuda()(images)

    def samples(number: int) -> Samples:
        return Samples(number, np.arange(batch))

    calls: dict[str, Callable[[int], object]] = {
        "randaugment": lambda number: model.change(images, samples(number)),
        "erasing": lambda number: model.erase(floats, samples(number)),
        "mixing": lambda number: mix(floats, labels),
    }
    result: dict = {"batch": batch}
    for name, call in calls.items():
        with Operations() as operations:
            call(0)
        device, host = median(call)
        floor = floors(batch)[name]
        result[name] = {"ms": device, "host_ms": host, "floor": floor, "ops": operations.count}
        print(
            f"batch {batch} {name:12} {device:6.2f} ms (floor {floor:.3f}), "
            f"launched in {host:.2f} ms, {operations.count} operations",
            flush=True,
        )
    return result


def training_step(name: str, batch: int, execution: str, windows: int, steps: int) -> dict:
    """Time whole steps with and without augmentation, in turn.

    As in training, nothing waits for the device between the steps of a window.
    """
    import timm

    import semabench  # noqa: F401  registers the models

    gc.collect()  # what an earlier model held
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    net = timm.create_model(name, num_classes=1000).cuda().train()
    net = net.to(memory_format=torch.channels_last)
    if execution != "eager":
        net.compile(dynamic=False, mode="reduce-overhead" if execution == "graphs" else None)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).cuda()
    mix = Mix(1000, mixup=0.8, cutmix=1.0, prob=1.0, switch_prob=0.5)
    augment = BatchAugment(PUBLISHED, 0.25, seed=0).cuda()
    shape = (batch, RESOLUTION, RESOLUTION, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda").permute(0, 3, 1, 2)
    labels = torch.arange(batch, device="cuda") % 1000

    def step(augmented: bool, number: int) -> None:
        made, targets = normalize(images), labels
        if augmented:
            samples = Samples(number, np.arange(batch))
            made = augment.erase(normalize(augment.change(images, samples)), samples)
            made, targets = mix(made, labels)
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(net(made), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def window(augmented: bool, first: int) -> tuple[float, float]:
        """Return milliseconds a step, and those the host took to launch one."""
        torch.cuda.synchronize()
        began = time.perf_counter()
        for number in range(first, first + steps):
            step(augmented, number)
        launched = time.perf_counter()
        torch.cuda.synchronize()
        ended = time.perf_counter()
        return 1000 * (ended - began) / steps, 1000 * (launched - began) / steps

    for augmented in (False, True):  # compiles, and fills the allocator
        window(augmented, 0)
    spent: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for number in range(windows):
        for augmented in (False, True):
            spent[augmented].append(window(augmented, (1 + number) * steps))
    result: dict = {"model": name, "batch": batch, "execution": execution, "steps": steps}
    for kind, times in (("without", spent[False]), ("with", spent[True])):
        result[kind] = statistics.median(total for total, _ in times)
        result[f"{kind}_host"] = statistics.median(host for _, host in times)
        result[f"{kind}_windows"] = [total for total, _ in times]
    result["memory_gib"] = torch.cuda.max_memory_reserved() / 2**30
    share = result["with"] / result["without"] - 1
    print(
        f"batch {batch} {name} {execution}: a step takes {result['without']:.1f} ms without "
        f"(launched in {result['without_host']:.1f}), {result['with']:.1f} with augmentation "
        f"({result['with_host']:.1f}): {100 * share:+.1f} %, {result['memory_gib']:.1f} GiB",
        flush=True,
    )
    return result


def main() -> None:
    """Parse the command line, run, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="sema_tiny", help="of the training step; '' for none")
    parser.add_argument("--out", type=Path, help="folder for augment.json")
    parser.add_argument("--executions", nargs="+", default=["eager"], choices=EXECUTIONS)
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 256])
    parser.add_argument("--windows", type=int, default=5, help="of each kind of step, in turn")
    parser.add_argument("--steps", type=int, default=20, help="of a window")
    options = parser.parse_args()
    results: dict = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    results["parts"] = [augmentation(batch) for batch in options.batches]
    results["steps"] = [
        training_step(options.model, batch, execution, options.windows, options.steps)
        for execution in options.executions
        for batch in options.batches
        if options.model
    ]
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "augment.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
