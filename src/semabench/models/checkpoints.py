"""Load weights into a model of ours: official MILA checkpoints, or files with our own key names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from semabench.errors import SemabenchError
from semabench.models.weights_file import read_state_dict

_OFFICIAL = ("patch_embed.", "layers.")
# Their tables of rotations depend on the resolution of training; ours are made on the fly.
_ROPE_TABLE = re.compile(r"\.attn\.rope\.rotations$")


def is_official(state_dict: Mapping[str, Tensor]) -> bool:
    """Tell the official MILA code's key names from ours."""
    return any(key.startswith(_OFFICIAL) for key in state_dict)


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of the official MILA code (MLLA@66b6d29) to ours; drop RoPE's tables."""
    return {our_key(key): value for key, value in state_dict.items() if not _ROPE_TABLE.search(key)}


def our_key(official: str) -> str:
    """Return our name of one official key. Ours puts a stage's downsampling before its blocks."""
    key = re.sub(
        r"^layers\.(\d+)\.downsample\.",
        lambda match: f"stages.{int(match[1]) + 1}.downsample.",
        official,
    )
    key = re.sub(r"^layers\.", "stages.", key)
    key = re.sub(r"^patch_embed\.", "stem.", key)
    key = re.sub(r"^head\.", "head.fc.", key)
    return key.replace(".attn.", ".mixer.")


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
    state_dict = read_state_dict(path)
    if is_official(state_dict):
        state_dict = from_official(state_dict)
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


def _check_classes(
    state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str | Path
) -> None:
    key = "head.fc.weight"
    if key in state_dict and key in wanted and len(state_dict[key]) != len(wanted[key]):
        raise SemabenchError(
            f"The checkpoint {path} is for {len(state_dict[key])} classes, the model for "
            f"{len(wanted[key])}."
        )
