"""Macro-architectures, known to timm once this package is imported."""

from semabench.models.build import build_model, model_names
from semabench.models.resolution import backend_name, mixer_name, set_resolution, set_window_size

__all__ = [
    "backend_name",
    "build_model",
    "mixer_name",
    "model_names",
    "set_resolution",
    "set_window_size",
]
