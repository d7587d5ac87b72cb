"""Official VMamba checkpoints, of any age: their key names and shapes as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_OFFICIAL = ("patch_embed.", "layers.")
# Names of early checkpoints, which the official loader turns into today's in the same way.
_OLD = (
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"(^layers\.\d+\.blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"(^layers\.\d+\.blocks\.\d+)\.self_attention\.", r"\1.op."),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.", "classifier.head."),
)
# Today's names, whose numbers count activations and permutations too, and ours.
_NEW = (
    (r"^patch_embed\.0\.", "stem.conv1."),
    (r"^patch_embed\.2\.", "stem.norm1."),
    (r"^patch_embed\.5\.", "stem.conv2."),
    (r"^patch_embed\.7\.", "stem.norm2."),
    (r"^layers\.(\d+)\.downsample\.1\.", r"layers.\1.downsample.conv."),
    (r"^layers\.(\d+)\.downsample\.3\.", r"layers.\1.downsample.norm."),
    (r"\.op\.(x_proj_weight|dt_projs_\w+|A_logs|Ds|out_norm)", r".op.mixer.\1"),
    (r"^layers\.", "stages."),
    (r"^classifier\.norm\.", "norm."),
    (r"^classifier\.head\.", "head.fc."),
)
_LINEAR = re.compile(r"\.(in_proj|out_proj|fc1|fc2)\.weight$")


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring keys and shapes of the official VMamba code (VMamba@2ed52ea) to ours.

    Older names are understood. Linear layers that were saved as 1×1 convolutions lose their last
    two dimensions. A state dict with our own names is returned as it is.
    """
    if not any(key.startswith(_OFFICIAL) for key in state_dict):
        return dict(state_dict)
    return {
        our_key(key): value.flatten(1) if _is_pointwise(key, value) else value
        for key, value in state_dict.items()
    }


def our_key(official: str) -> str:
    """Return our name of one official key. Ours puts a stage's downsampling before its blocks."""
    key = official
    for pattern, name in _OLD + _NEW:
        key = re.sub(pattern, name, key)
    return re.sub(
        r"^stages\.(\d+)\.downsample\.",
        lambda match: f"stages.{int(match[1]) + 1}.downsample.",
        key,
    )


def _is_pointwise(key: str, value: Tensor) -> bool:
    return bool(_LINEAR.search(key)) and value.ndim == 4 and value.shape[2:] == (1, 1)
