"""Load weights into a model: official checkpoints of the families here, or its own key names.

A state dict is read out of its file whichever wrapping it came in; nothing is executed.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from semabench.errors import SemabenchError, first_line
from semabench.models import mila, vmamba
from semabench.models.mila import Backbone
from semabench.models.vim import Vim, fit_positions
from semabench.models.vmamba import VMamba
from semabench.processes import global_rank
from semabench.progress import note

# Where training scripts, and our training module, put averaged weights and plain ones.
_CONTAINERS = {"ema": ("state_dict_ema", "model_ema"), "model": ("state_dict", "model")}
_MODULES = {"ema": "ema.module.", "model": "model."}
_WRAPPERS = ("module.", "_orig_mod.")  # what DDP and torch.compile put before each key


class Weights(NamedTuple):
    """What a file holds: ``which`` is "ema" or "model", the latter also where it does not say."""

    tensors: dict[str, Tensor]
    which: str
    both: bool  # averaged and plain ones are there


def read_state_dict(path: str | Path, weights: str = "auto", reported: str = "ema") -> Weights:
    """Read the weights in a .safetensors file or a torch checkpoint, official or ours.

    Args:
        path: the file.
        weights: "ema" or "model": the averaged or the plain weights of a file with both; "auto":
            ``reported`` of an official file, the averaged ones of ours.
        reported: "ema" or "model": those whose accuracy was published.

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
    return _unwrap(content, path, weights, reported)


def _unwrap(content: Any, path: Path, weights: str, reported: str) -> Weights:
    found, both = "model", False
    if isinstance(content, dict):
        there = {
            which: name
            for which, names in _CONTAINERS.items()
            for name in reversed(names)
            if _holds_weights(content.get(name))
        }
        if there:
            wanted = reported if weights == "auto" else weights
            found, both = wanted if wanted in there else next(iter(there)), len(there) > 1
            content = content[there[found]]
    if not isinstance(content, dict):
        raise SemabenchError(f"The checkpoint {path} holds no weights.")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise SemabenchError(f"The checkpoint {path} holds no weights.")
    inner = {which: _below(prefix, tensors) for which, prefix in _MODULES.items()}
    inner = {which: part for which, part in inner.items() if part}
    if inner:
        wanted = "ema" if weights == "auto" else weights
        which = wanted if wanted in inner else next(iter(inner))
        tensors, both = inner[which], both or len(inner) > 1
        found = "ema" if which == "ema" else found
    for prefix in _WRAPPERS:
        tensors = _below(prefix, tensors) or tensors
    return Weights(tensors, found, both)


def _holds_weights(part: Any) -> bool:
    return isinstance(part, dict) and any(isinstance(value, Tensor) for value in part.values())


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): value for k, value in tensors.items() if k.startswith(prefix)}


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


def load_checkpoint(
    model: nn.Module, path: str | Path, what: str, weights: str = "auto", *, new_head: bool = False
) -> Weights:
    """Load a weights file, official or ours, every key of it and of the model; return them.

    Args:
        model: ours, or any other with its own key names.
        path: .safetensors, or a torch checkpoint.
        what: the model's name, for messages.
        weights: "ema" or "model", the averaged or the plain ones; "auto" takes, of a file with
            both, the averaged ones, but of an official Vim file the plain ones: those reported.
        new_head: where the file's classes are another number, keep the model's own classifier.

    Raises:
        SemabenchError: the file cannot be read, is not of this model or of another number of
            classes, or has no such weights.
    """
    taken = read_state_dict(path, weights, "model" if isinstance(model, Vim) else "ema")
    if weights not in ("auto", taken.which):
        kind, other = ("averaged", "model") if weights == "ema" else ("plain", "ema")
        raise SemabenchError(f"{path} has no {kind} weights: use weights={other}.")
    if taken.both and global_rank() == 0:
        note(f"of {path} the {'averaged' if taken.which == 'ema' else 'plain'} weights are taken")
    state_dict = translate(taken.tensors, model)
    wanted = model.state_dict()
    head = _head(model)
    weight = f"{head}.weight"
    theirs, ours = (len(part[weight]) if weight in part else 0 for part in (state_dict, wanted))
    if ours and theirs != ours and (theirs or new_head):
        if not new_head:
            raise SemabenchError(
                f"The checkpoint {path} is for {theirs} classes, the model for {ours}."
            )
        if global_rank() == 0:
            note(f"{path} is for {theirs} classes: the classifier of {ours} is made anew")
        kept = {name: value for name, value in wanted.items() if name.startswith(f"{head}.")}
        state_dict = {**state_dict, **kept}
    for problem, keys in (
        ("lacks", wanted.keys() - state_dict.keys()),
        ("has unknown", state_dict.keys() - wanted.keys()),
    ):
        if keys:
            first = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
            raise SemabenchError(
                f"The checkpoint {path} is not one of {what}: it {problem} {first} "
                f"({len(keys)} of {len(wanted)} keys)."
            )
    for key, value in state_dict.items():
        if value.shape != wanted[key].shape:
            raise SemabenchError(
                f"The checkpoint {path} is not one of {what}: {key} has the shape "
                f"{tuple(value.shape)}, not {tuple(wanted[key].shape)}."
            )
    model.load_state_dict(state_dict)
    return taken


def _head(model: nn.Module) -> str:
    """Return the path of a model's classifier; nothing where it has none of its own."""
    known: Any = model
    classifier = known.get_classifier() if hasattr(model, "get_classifier") else None
    return next((name for name, module in model.named_modules() if module is classifier), "")


def translate(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Bring the state dict of a model's official code to our names and shapes.

    One with our names, and that of a model that is not ours, is returned as it is.
    """
    if isinstance(model, Backbone):
        return mila.from_official(state_dict)
    if isinstance(model, VMamba):
        return vmamba.from_official(state_dict)
    if isinstance(model, Vim):
        return fit_positions(state_dict, model)
    return dict(state_dict)
