"""torch.hub's entry: ``torch.hub.load("OWNER/semabench", "sema_tiny")`` builds our models."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

import timm

from semabench.models import model_names

dependencies = ["torch", "timm", "hydra", "omegaconf"]
globals().update({name: partial(timm.create_model, name) for name in model_names()})
