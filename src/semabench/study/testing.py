"""The accuracy of a trained model on pictures of one size, drawn as they are needed."""

from __future__ import annotations

import torch
from torch import nn

from semabench.data.procedural.draw import CALIBRATION_EPOCH, TEST_EPOCH, draw
from semabench.data.procedural.tasks import Task

TOKENS = 2**18  # of a batch, at most, if it has more than one picture
EPOCHS = {"test": TEST_EPOCH, "calibration": CALIBRATION_EPOCH}


@torch.no_grad()
def count_correct(
    model: nn.Module,
    task: Task,
    size: int,
    *,
    seed: int,
    pictures: str,
    samples: int,
    device: torch.device,
) -> int:
    """Return how many of the first ``samples`` test pictures a model gets right, in float32.

    Args:
        model: uint8 images to logits.
        task: what to draw.
        size: cells of a side.
        seed: of the pictures.
        pictures: "test" or "calibration".
        samples: how many.
        device: where to draw and to compute.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    batch = max(1, TOKENS // size**2)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for index in torch.arange(samples, device=device).split(batch):
        images, labels = draw(task, size, seed=seed, epoch=EPOCHS[pictures], index=index)
        correct += (model(images).argmax(dim=1) == labels).sum()
    return int(correct)
