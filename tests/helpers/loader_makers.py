"""Loaders of the fixture ``dataset``, of either kind, and what their batches are compared by."""

import pytest
import torch

from semabench.data.ffcv.loader import missing_ffcv
from semabench.data.loader import create_eval_loader, create_train_loader

needs_ffcv = pytest.mark.skipif(missing_ffcv() is not None, reason="FFCV is not installed")
KINDS = [pytest.param("ffcv", marks=needs_ffcv), "folder"]


def train(dataset, kind, **options):
    options = {"batch_size": 8, "seed": 3, "num_workers": 2, **options}
    return create_train_loader(
        kind=kind,
        packed_dir=dataset.packed,
        source_dir=dataset.source,
        resolution=dataset.resolution,
        **options,
    )


def evaluation(dataset, kind, **options):
    options = {"batch_size": 8, "num_workers": 2, "resolution": dataset.resolution, **options}
    return create_eval_loader(
        kind=kind, packed_dir=dataset.packed, source_dir=dataset.source, **options
    )


def copied(batches):
    return [(images.clone(), labels.clone()) for images, labels, *_ in batches]


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        torch.equal(x, u) and torch.equal(y, v)
        for (x, y, *_), (u, v, *_) in zip(ours, theirs, strict=True)
    )
