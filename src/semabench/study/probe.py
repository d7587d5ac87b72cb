"""The model of a training, before it is trained."""

from __future__ import annotations

import torch
from torch import nn

from semabench.data.procedural.tasks import CLASSES
from semabench.models import build_model
from semabench.study.spec import Training

MODEL = "probe_nano"


def build_probe(training: Training) -> nn.Module:
    """Build the model of a training, its weights drawn from the seed, on the CPU."""
    torch.manual_seed(training.seed)
    return build_model(
        MODEL,
        num_classes=CLASSES,
        resolution=training.train_resolutions[0],
        mixer=training.mixer,
        options={
            "global_pool": training.readout,
            "depth": training.depth,
            "embed_dim": training.embed_dim,
            "num_heads": training.num_heads,
        },
    )
