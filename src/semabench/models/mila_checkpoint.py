"""Official MILA checkpoints: their key names as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_OFFICIAL = ("patch_embed.", "layers.")
# Their tables of rotations depend on the resolution of training; ours are made on the fly.
_ROPE_TABLE = re.compile(r"\.attn\.rope\.rotations$")


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of the official MILA code (MLLA@66b6d29) to ours; drop RoPE's tables.

    A state dict with our own names is returned as it is.
    """
    if not any(key.startswith(_OFFICIAL) for key in state_dict):
        return dict(state_dict)
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
