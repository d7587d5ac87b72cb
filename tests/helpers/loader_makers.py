"""Loaders of the fixture ``dataset``, of either kind, and what their batches are compared by."""

from dataclasses import fields

import pytest
import torch

from semabench.config.schema import DataConfig
from semabench.data.ffcv.loader import missing_ffcv
from semabench.data.loader import create_eval_loader, create_train_loader

needs_ffcv = pytest.mark.skipif(missing_ffcv() is not None, reason="FFCV is not installed")
KINDS = [pytest.param("ffcv", marks=needs_ffcv), "folder"]


def configured(dataset, kind, options):
    """The config of the fixture; takes the keys that are its own out of ``options``."""
    own = {field.name for field in fields(DataConfig)} & options.keys() - {"num_workers", "holdout"}
    return DataConfig(
        name="fixture",
        packed=str(dataset.packed),
        source=dataset.source and str(dataset.source),
        loader=kind,
        **({"resolution": dataset.resolution} | {key: options.pop(key) for key in own}),
    )


def train(dataset, kind, **options):
    options = {"batch_size": 8, "seed": 3, "num_workers": 2, **options}
    return create_train_loader(configured(dataset, kind, options), **options)


def evaluation(dataset, kind, **options):
    options = {"batch_size": 8, "num_workers": 2, **options}
    config = configured(dataset, kind, options)
    return create_eval_loader(config, config.resolution, **options)


def copied(batches):
    return [(images.clone(), labels.clone()) for images, labels, *_ in batches]


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        torch.equal(x, u) and torch.equal(y, v)
        for (x, y, *_), (u, v, *_) in zip(ours, theirs, strict=True)
    )
