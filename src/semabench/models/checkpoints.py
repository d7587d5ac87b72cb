"""Load weights into a model: official checkpoints of the families here, or its own key names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from semabench.errors import SemabenchError
from semabench.models import mila_checkpoint, vmamba_checkpoint
from semabench.models.backbone import Backbone
from semabench.models.vim import Vim
from semabench.models.vim_checkpoint import fit_positions
from semabench.models.vmamba import VMamba
from semabench.models.weights_file import read_state_dict


def load_checkpoint(model: nn.Module, path: str | Path, what: str) -> None:
    """Load a weights file, official or ours, every key of it and of the model.

    Args:
        model: ours, or any other with its own key names.
        path: .safetensors, or a torch checkpoint.
        what: the model's name, for messages.

    Raises:
        SemabenchError: the file cannot be read, or is not of this model, or of another number of
            classes.
    """
    state_dict = translate(read_state_dict(path), model)
    wanted = model.state_dict()
    _check_classes(state_dict, wanted, path)
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


def translate(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Bring the state dict of a model's official code to our names and shapes.

    One with our names, and that of a model that is not ours, is returned as it is.
    """
    if isinstance(model, Backbone):
        return mila_checkpoint.from_official(state_dict)
    if isinstance(model, VMamba):
        return vmamba_checkpoint.from_official(state_dict)
    if isinstance(model, Vim):
        return fit_positions(state_dict, model)
    return dict(state_dict)


def _check_classes(
    state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str | Path
) -> None:
    for key in ("head.fc.weight", "head.weight"):
        if key in state_dict and key in wanted and len(state_dict[key]) != len(wanted[key]):
            raise SemabenchError(
                f"The checkpoint {path} is for {len(state_dict[key])} classes, the model for "
                f"{len(wanted[key])}."
            )
