"""torch.hub's entry: ``torch.hub.load("OWNER/semabench", "sema_tiny")`` builds our models."""

dependencies = ["torch", "timm", "safetensors", "rich"]

import sys as _sys  # noqa: E402
from functools import partial as _partial  # noqa: E402
from pathlib import Path as _Path  # noqa: E402

_sys.path.insert(0, str(_Path(__file__).parent / "src"))

import timm as _timm  # noqa: E402

from semabench.models import model_names as _model_names  # noqa: E402

globals().update({name: _partial(_timm.create_model, name) for name in _model_names()})
