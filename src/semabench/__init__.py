"""semabench: does this token mixer hold up as images grow?

Importing it makes its models known to timm: ``timm.create_model("sema_tiny")``.
"""

import gc
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_APPS = ("semabench", "-m", "train.py", "eval.py")
# The command line ("-m": python -m semabench) imports what a command needs: timm alone takes
# seconds, `report` needs none.
if Path(sys.argv[0] if sys.argv else "").name not in _APPS:
    _collects = gc.isenabled()
    gc.disable()  # torch and timm leave no garbage: looking for it is a fifth of their import
    try:
        from semabench import models as models
    finally:
        if _collects:
            gc.enable()

__all__ = ["__version__", "evaluate", "load", "report", "train", "train_config"]


def __getattr__(name: str) -> Any:
    """Import `semabench.api` for what it holds: it takes seconds."""
    if name in __all__:
        return getattr(import_module("semabench.api"), name)
    raise AttributeError(f"module 'semabench' has no attribute '{name}'")
