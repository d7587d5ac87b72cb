"""ReaL: the labels that people give ImageNet's validation images, several or none an image.

Beyer et al. 2020, "Are we done with ImageNet?" (arXiv 2006.07159). The labels come with timm. A
prediction is right if it is among an image's labels; images without any do not count.
"""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.evaluation.classes import IMAGENET_CLASSES
from semabench.training.counts import Counts

# The Hub's names end in the WordNet id.
_NUMBER = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})(?:_n\d{8})?\.JPEG", re.IGNORECASE)


def real_labels(paths: Sequence[str] | None, dataset: str) -> Tensor:
    """Return which classes each image has, bool (N, 1000), in the order of everybody's logits.

    Args:
        paths: of the images; their names are those of ImageNet's validation set.
        dataset: its name, for messages.

    Raises:
        SemabenchError: an image is none of these, or its name is not known.
    """
    if paths is None:
        raise SemabenchError(
            f"{dataset} does not tell its images' names, which ReaL needs: render it again with "
            "--overwrite, or read it with data.loader=folder."
        )
    sets = torch.zeros(len(paths), IMAGENET_CLASSES, dtype=torch.bool)
    known = _of_timm()
    for image, path in enumerate(paths):
        match = _NUMBER.fullmatch(path)
        if match is None or not 1 <= int(match[1]) <= len(known):
            raise SemabenchError(
                f"ReaL has labels for ImageNet's validation images alone: {path} of {dataset} is "
                "not called ILSVRC2012_val_<number>.JPEG."
            )
        sets[image, known[int(match[1]) - 1]] = True
    return sets


@cache
def _of_timm() -> list[list[int]]:
    try:
        data = pkgutil.get_data("timm.data", "_info/imagenet_real_labels.json")
    except OSError:
        data = None
    if data is None:
        raise SemabenchError("this version of timm has no ReaL labels: install timm 1.0.31.")
    labels: list[list[int]] = json.loads(data)
    return labels


def numbered(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of a whole dataset in order, images' numbers for labels; -1 stays."""
    begun = 0
    for images, labels in batches:
        real = labels >= 0
        places = begun + real.cumsum(0) - 1
        begun += int(real.sum())
        yield images, torch.where(real, places, labels)


class RealCounts(Counts):
    """Counts predictions that are among an image's labels; ``add`` takes numbers for labels.

    Args:
        sets: of all images, bool (N, classes), on the device.
    """

    def __init__(self, sets: Tensor) -> None:
        super().__init__()
        self.sets = sets

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count one batch; an image without labels does not count, nor does the loss."""
        wanted = self.sets[labels.clamp(min=0)]
        counted = (labels >= 0) & wanted.any(dim=1)
        hits = wanted.gather(1, logits.float().topk(5, dim=1).indices) & counted[:, None]
        parts = [counted.sum(), hits[:, 0].sum(), hits.any(dim=1).sum(), hits.new_zeros(())]
        self.sums = self.sums.to(logits.device) + torch.stack([part.double() for part in parts])
