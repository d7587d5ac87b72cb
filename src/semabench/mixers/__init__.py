"""Token mixers on a (B, H, W, C) grid, found by name: ``create_mixer("sema", dim, num_heads)``."""

from semabench.mixers.base import (
    Mixer,
    create_mixer,
    headless_mixers,
    list_mixers,
    mixer_options,
    register_mixer,
)
from semabench.mixers.focused import Focused
from semabench.mixers.linear import Linear, Mila
from semabench.mixers.mean import Mean
from semabench.mixers.none import NoMixing
from semabench.mixers.rala import RALA
from semabench.mixers.sema import SEMA
from semabench.mixers.softmax import Softmax
from semabench.mixers.ssd import SSD
from semabench.mixers.ssm import SSM
from semabench.mixers.window import Window, WindowedMixer

__all__ = [
    "RALA",
    "SEMA",
    "SSD",
    "SSM",
    "Focused",
    "Linear",
    "Mean",
    "Mila",
    "Mixer",
    "NoMixing",
    "Softmax",
    "Window",
    "WindowedMixer",
    "create_mixer",
    "headless_mixers",
    "list_mixers",
    "mixer_options",
    "register_mixer",
]
