"""Classifiers of frozen features: what their training images' labels say of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from semabench.errors import SemabenchError

_ROWS = 512  # of images whose neighbours are looked for at once
_AT_ONCE = 1 << 15  # of images whose logits are held
_STEPS = 200  # of L-BFGS, at most


@dataclass(frozen=True)
class Features:
    """Of the images of a split: x (N, D) float32, labels (N,) int64, on one device."""

    x: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def where(self, chosen: Tensor) -> Features:
        """Return those of some images."""
        return Features(self.x[chosen], self.labels[chosen])


def require_enough(images: int, neighbors: Sequence[int]) -> None:
    """Raise a SemabenchError unless there are enough training images for what is asked for."""
    if images < 10:
        raise SemabenchError(f"{images} training images are too few to learn from: at least 10.")
    if neighbors and max(neighbors) > images:
        raise SemabenchError(f"neighbors={max(neighbors)} are more than the {images} images.")


def vote(
    train: Features, x: Tensor, classes: int, neighbors: int, temperature: float
) -> Iterator[Tensor]:
    """Yield the votes of each image's nearest neighbours, (rows, classes), some rows at a time.

    Neighbours are those of the largest cosine s, and vote for their class with exp(s / T), as in
    Wu et al. 2018 (arXiv 1805.01978, §3.4).

    There are at least as many training images, see `require_enough`.
    """
    known = F.normalize(train.x, dim=1).T
    for some in x.split(_ROWS):
        cosine, nearest = (F.normalize(some, dim=1) @ known).topk(neighbors, dim=1)
        # of the differences to the nearest: exp(1 / T) itself may be infinite
        weights = ((cosine - cosine[:, :1]) / temperature).exp()
        empty = weights.new_zeros(len(some), classes)
        yield empty.scatter_add_(1, train.labels[nearest], weights)


@dataclass(frozen=True)
class Linear:
    """A softmax over a linear layer of standardised features."""

    mean: Tensor  # (D,), of the training images
    scale: Tensor  # (D,)
    weight: Tensor  # (classes, D)
    bias: Tensor  # (classes,)
    penalty: float

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of features (N, D)."""
        return F.linear((x - self.mean) * self.scale, self.weight, self.bias)

    def hits(self, features: Features) -> int:
        """Count the images whose largest logit is right."""
        return int((self(features.x).argmax(dim=1) == features.labels).sum())


def fit_linear(train: Features, classes: int, penalties: Sequence[float]) -> Linear:
    """Fit a linear layer, with the penalty that is best on every tenth training image, left out.

    Of equally good penalties the largest is taken. No image to test on has a part in it. There are
    at least ten training images.
    """
    best = max(penalties)
    if len(set(penalties)) > 1:
        out = torch.arange(len(train), device=train.x.device) % 10 == 9
        held, kept = train.where(out), train.where(~out)
        # each from zero, as the last fit: one that stops early would else be another than chosen
        scores = {penalty: _fit(kept, classes, penalty).hits(held) for penalty in penalties}
        best = max(scores, key=lambda penalty: (scores[penalty], penalty))
    return _fit(train, classes, best)


def _fit(train: Features, classes: int, penalty: float) -> Linear:
    """Minimise the mean cross-entropy + penalty/2 · ‖W‖² by L-BFGS, from zero."""
    mean = train.x.mean(dim=0)
    scale = 1 / train.x.std(dim=0).clamp(min=1e-6)
    weight = train.x.new_zeros(classes, train.x.shape[1], requires_grad=True)
    bias = train.x.new_zeros(classes, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        whole = penalty / 2 * weight.square().sum()
        whole.backward()
        total = whole.detach()
        for x, labels in zip(train.x.split(_AT_ONCE), train.labels.split(_AT_ONCE), strict=True):
            logits = F.linear((x - mean) * scale, weight, bias)
            part = F.cross_entropy(logits, labels, reduction="sum") / len(train)
            part.backward()
            total = total + part.detach()
        return total

    search.step(loss)
    return Linear(mean, scale, weight.detach(), bias.detach(), penalty)
