"""Read a state dict out of a weights file, whichever wrapping it came in. Nothing is executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from semabench.errors import SemabenchError, first_line

# Where training scripts put weights, the averaged ones (timm's habit) before the plain ones.
_CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# What wrappers put before each key: our training module (its EMA first), DDP, torch.compile.
_PREFIXES = ("ema.module.", "model.", "module.", "_orig_mod.")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights in a .safetensors file or a torch checkpoint, official or ours.

    Raises:
        SemabenchError: the file is missing, damaged, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise SemabenchError(f"There is no checkpoint {path}.")
    try:
        content = (
            safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _load(path)
        )
    except (
        AttributeError,
        EOFError,
        KeyError,
        OSError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        reason = first_line(error)
        raise SemabenchError(f"The checkpoint {path} is damaged ({reason}).") from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict):
        for container in _CONTAINERS:
            if isinstance(content.get(container), dict):
                content = content[container]
                break
    if not isinstance(content, dict):
        raise SemabenchError(f"The checkpoint {path} holds no weights.")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise SemabenchError(f"The checkpoint {path} holds no weights.")
    for prefix in _PREFIXES:
        inner = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        tensors = inner or tensors
    return tensors


class _Inert(dict[Any, Any]):
    """Stands for every class that a checkpoint names and weights do not need."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""


class _WeightsUnpickler(pickle.Unpickler):
    """Builds tensors and containers; any other class or function becomes an ``_Inert``."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = (
            (module == "torch._utils" and name.startswith("_rebuild_"))
            or (module in ("torch", "torch.storage") and name.endswith("Storage"))
            or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype))
            or (module, name) == ("collections", "OrderedDict")
        )
        return super().find_class(module, name) if allowed else _Inert


class _WeightsPickle:
    """What ``torch.load`` asks of a pickle module."""

    __name__ = "weights_pickle"
    Unpickler = _WeightsUnpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **kwargs: Any) -> Any:
        return _WeightsUnpickler(file, **kwargs).load()


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Scripts of Swin's lineage, MILA's too, save their yacs config along with the weights.
        return torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=_WeightsPickle()
        )
