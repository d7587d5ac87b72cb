"""Segmentation at growing resolution, our backbones and Swin as encoders of one decoder (FPN).

    pip install segmentation-models-pytorch
    python examples/segmentation.py --encoders sema_nano mila_nano swin_tiny_patch4_window7_224

Images are procedural: discs and squares, told apart by their shape alone, on a textured ground.
Each encoder is trained at one resolution and tested at several, objects growing with the image.
Printed for each: mean intersection over union (%, of 64 images), images per second of a forward
pass and, on a GPU, its peak memory. A recipe to start from, no ranking: one seed, small images.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import semabench  # noqa: F401  (makes our models known to timm)

CLASSES = 3  # ground, disc, square


def draw(count: int, resolution: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, R, R) in [-1, 1] and their labels (B, R, R): a disc and a square each.

    Both have the same area and the same colours; where they overlap, the square is on top.
    """
    axis = (torch.arange(resolution) + 0.5) / resolution
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    labels = torch.zeros(count, resolution, resolution, dtype=torch.int64)
    for label in (1, 2):
        dx, dy = (x - uniform(0.2, 0.8)).abs(), (y - uniform(0.2, 0.8)).abs()
        radius = uniform(0.1, 0.2)
        half = radius * torch.pi**0.5 / 2
        inside = dx**2 + dy**2 < radius**2 if label == 1 else torch.maximum(dx, dy) < half
        labels[inside] = label
    waves = torch.sin(40 * (x * uniform(-1, 1) + y * uniform(-1, 1)) + uniform(0, 6))
    ink = torch.where(labels > 0, 0.6, -0.4) + 0.3 * waves
    noise = 0.2 * torch.randn(count, 3, resolution, resolution, generator=generator)
    return (ink[:, None] + noise).clamp(-1, 1), labels


def create(encoder: str) -> nn.Module:
    """Return an FPN on a model of timm's or ours, known by name there, for any image size."""
    swin: dict[str, Any] = {"strict_img_size": False, "always_partition": True}
    options = swin if encoder.startswith("swin") else {}
    return smp.FPN(f"tu-{encoder}", encoder_weights=None, classes=CLASSES, **options)


def train(model: nn.Module, resolution: int, steps: int, batch: int, device: str) -> None:
    """Take AdamW steps under a linearly falling rate."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    model.train()
    for _ in range(steps):
        images, labels = (t.to(device) for t in draw(batch, resolution, generator))
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()


@torch.no_grad()
def test(model: nn.Module, resolution: int, batch: int, device: str) -> str:
    """Return what the module's text says of one resolution."""
    generator = torch.Generator().manual_seed(2)
    model.eval()
    both, either = torch.zeros(CLASSES), torch.zeros(CLASSES)
    seconds, count = 0.0, 0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for number in range(64 // batch + 1):  # the first batch is not counted: it chooses kernels
        images, labels = draw(batch, resolution, generator)
        began = time.perf_counter()
        found = model(images.to(device)).argmax(1).cpu()
        if number == 0:
            continue
        seconds, count = seconds + time.perf_counter() - began, count + batch
        for k in range(CLASSES):
            both[k] += ((found == k) & (labels == k)).sum()
            either[k] += ((found == k) | (labels == k)).sum()
    told = f"mIoU {100 * (both / either).mean():.1f} %  {count / seconds:,.0f} img/s"
    if device == "cuda":
        told += f"  {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"
    return told


def main() -> None:
    """Train and test each encoder; print a line a resolution."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoders", nargs="+", default=["sema_nano", "mila_nano"])
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--evaluate", type=int, nargs="+", default=[64, 96, 128, 192])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for encoder in options.encoders:
        torch.manual_seed(0)
        model = create(encoder).to(device)
        train(model, options.resolution, options.steps, options.batch, device)
        for resolution in options.evaluate:
            print(f"{encoder}  {resolution} px  {test(model, resolution, options.batch, device)}")


if __name__ == "__main__":
    main()
