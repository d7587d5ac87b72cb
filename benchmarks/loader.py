"""Time loaders of training images: ours, stock FFCV's on the same file, torchvision's with PIL.

    PYTHONPATH=src python3 benchmarks/loader.py [--folder DIR] [--out DIR]

Makes its images (procedural: noise whose amplitude falls with the
frequency, as photographs' does; longest side 500 px, JPEG quality 90), packs them with
`semabench data pack`, and lets each loader make random-resized-crops of 224 px, flipped at random,
as batches of uint8 in CPU memory. The loaders live in a process each and take turns, A B C A B C;
while one works the others wait. A rate counts from a batch of an epoch (the first; for
torchvision, whose workers each make a whole one, the one where all have delivered twice) to its
last, so that starting an epoch, which costs a real dataset little, is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESOLUTION = 224
CLASSES = 8
AMPLITUDE = 27.0  # of the finest detail, for about 110 kB an image, as ImageNet's
MEAN_SLOPE = 1.1  # amplitude falls as frequency ** -slope
Epoch = Callable[[int], Iterable[Any]]


def image(seed: int) -> Image.Image:
    """Return one of 500 × 375 pixels, or upright."""
    rng = np.random.default_rng(seed)
    height, width = (375, 500) if rng.random() < 0.75 else (500, 375)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(fy, fx), 1 / width)
    slope = rng.uniform(MEAN_SLOPE - 0.3, MEAN_SLOPE + 0.3)
    phases = rng.uniform(0, 2 * np.pi, (3, height, frequency.shape[1]))
    noise = np.fft.irfft2(frequency**-slope * np.exp(1j * phases), s=(height, width))
    fine = np.std(noise - np.roll(noise, 1, axis=2))
    luma, red, blue = noise * (AMPLITUDE / fine)
    channels = [128 + luma + 0.4 * red, 128 + luma, 128 + luma + 0.4 * blue]
    return Image.fromarray(np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8))


def write_image(job: tuple[str, int]) -> int:
    """Write one; return its bytes."""
    path, seed = job
    image(seed).save(path, quality=90)
    return os.path.getsize(path)


def make(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """Make and pack ``count`` images, unless they are there; say what they are."""
    from semabench.data.ffcv.pack import pack

    source, about = folder / "source", folder / "about.json"
    if about.exists() and json.loads(about.read_text())["pictures"] == count:
        return json.loads(about.read_text())
    jobs = []
    for number in range(count):
        directory = source / "train" / f"class{number % CLASSES}"
        directory.mkdir(parents=True, exist_ok=True)
        jobs.append((str(directory / f"{number:06}.jpg"), number))
    with ProcessPoolExecutor(workers) as pool:
        sizes = list(pool.map(write_image, jobs, chunksize=16))
    pack(source, folder, workers=workers, overwrite=True)
    told = {"pictures": count, "mean_bytes": round(statistics.mean(sizes))}
    about.write_text(json.dumps(told))
    return told


def ours(folder: Path, batch: int, workers: int, interpolation: str, loader: str = "ffcv") -> Epoch:
    """Return the loader that `train.py` uses."""
    from semabench.config.schema import DataConfig
    from semabench.data.loader import create_train_loader

    config = DataConfig(
        "made", str(folder), resolution=RESOLUTION, interpolation=interpolation, loader=loader
    )
    batches = create_train_loader(config, batch_size=batch, seed=0, num_workers=workers)

    def epoch(number: int) -> Iterable[Any]:
        batches.set_epoch(number)
        return batches

    return epoch


def stock(folder: Path, batch: int, workers: int) -> Epoch:
    """Return ffcv.Loader with the operations of ffcv's own ImageNet example, up to the device."""
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    size = (RESOLUTION, RESOLUTION)
    loader = Loader(
        str(folder / "train.beton"),
        batch_size=batch,
        num_workers=workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder(size),
                RandomHorizontalFlip(),
                ToTensor(),
                ToTorchImage(),
            ],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    return lambda number: loader


def torchvision(folder: Path, batch: int, workers: int) -> Epoch:
    """Return torch's DataLoader over an ImageFolder, with PIL (bicubic)."""
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(RESOLUTION, interpolation=v2.InterpolationMode.BICUBIC)
    transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])
    data = ImageFolder(str(folder / "source" / "train"), transform)
    sampler = RandomSampler(data, replacement=True, num_samples=1 << 24)  # one endless epoch
    loader = DataLoader(data, batch, sampler=sampler, num_workers=workers, drop_last=True)
    return lambda number: loader


LOADERS: dict[str, Callable[..., Epoch]] = {
    "semabench, bicubic": lambda *told: ours(*told, "bicubic"),
    "semabench without FFCV, bicubic": lambda *told: ours(*told, "bicubic", "simplejpeg"),
    "semabench, area": lambda *told: ours(*told, "area"),
    "ffcv.Loader, area": stock,
    "torchvision, bicubic": torchvision,
}


def rate(epoch: Epoch, batch: int, skip: int, seconds: float) -> float:
    """Return images per second over at least so many seconds of whole or part epochs."""
    images, spent, number = 0, 0.0, 0
    while spent < seconds:
        start = None
        for index, _ in enumerate(epoch(number)):
            now = time.perf_counter()
            if start is not None:
                images += batch
                spent += now - start
            if index >= skip:
                start = now
            if spent >= seconds:
                break
        number += 1
    return images / spent


def serve(pipe: Connection, name: str, folder: Path, batch: int, workers: int) -> None:
    """Make one loader, and time a window of so many seconds whenever asked for it."""
    from semabench.processes import end_with_parent

    end_with_parent(pipe)
    epoch = LOADERS[name](folder, batch, workers)
    skip = 2 * workers if name.startswith("torchvision") else 0
    while (seconds := pipe.recv()) is not None:
        pipe.send(rate(epoch, batch, skip, seconds))


class Worker:
    """A loader's process."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        context = get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        told = (theirs, name, options.folder, options.batch, options.workers)
        # Daemons may have no children, which torchvision's workers are.
        self.process = context.Process(target=serve, args=told, daemon="torch" not in name)
        self.process.start()
        theirs.close()
        self.alive = True

    def answer(self, patience: float) -> float | None:
        """Wait for the rate; None, and a line, if the process dies or takes too long."""
        why = f"has not answered for {patience:.0f} s"
        try:
            if self.pipe.poll(patience):
                return self.pipe.recv()
        except (EOFError, ConnectionError):
            why = "died"
        print(f"{self.name}: left out, its process {why}", flush=True)
        self.alive = False
        self.process.kill()
        return None

    def stop(self) -> None:
        """End the process."""
        if self.alive:
            with contextlib.suppress(ConnectionError):
                self.pipe.send(None)


def main() -> None:
    """Parse the command line, run, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--folder", type=Path, default=Path("outputs/loader"))
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=cores)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loaders", nargs="+", default=list(LOADERS), choices=list(LOADERS))
    parser.add_argument("--patience", type=float, default=60.0, help="seconds, for an answer")
    parser.add_argument("--only-make", action="store_true", help="the images, and stop")
    parser.add_argument("--out", type=Path, help="folder for loader.json")
    options = parser.parse_args()
    about = make(options.folder, options.pictures, options.workers)
    print(f"{about['pictures']} images of {about['mean_bytes'] / 1e3:.0f} kB", flush=True)
    if options.only_make:
        return
    began = time.perf_counter()
    peers = [Worker(name, options) for name in options.loaders]
    for peer in peers:  # all compile and start at once
        peer.pipe.send(0.1)
    for peer in peers:
        if peer.answer(options.patience) is not None:
            print(f"{peer.name:22} ready after {time.perf_counter() - began:.0f} s", flush=True)
    rates: dict[str, list[float]] = {name: [] for name in options.loaders}
    for _ in range(options.rounds):
        for peer in peers:
            if not peer.alive:
                continue
            peer.pipe.send(options.seconds)
            found = peer.answer(options.patience)
            if found is not None:
                rates[peer.name].append(found)
                print(f"{peer.name:22} {found:7,.0f} img/s", flush=True)
    for peer in peers:
        peer.stop()
    result = {**about, "batch": options.batch, "workers": options.workers, "cores": cores}
    result["images_per_second"] = rates
    result["median"] = {name: statistics.median(r) for name, r in rates.items() if r}
    for name, median in result["median"].items():
        print(f"{name:22} median {median:7,.0f} img/s on {options.workers} workers", flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "loader.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
