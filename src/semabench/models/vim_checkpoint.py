"""Vim checkpoints: official key names are ours; only the table of positions may differ."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from semabench.models.vim import Vim
from semabench.models.vim_positions import resample_positions

_TABLE = "pos_embed"


def fit_positions(state_dict: Mapping[str, Tensor], model: Vim) -> dict[str, Tensor]:
    """Interpolate the table of positions to the model's own grid of patches.

    So weights of any resolution or stride fit: those of 224 px at 512, those of stride 16 in the
    fine-tuning form with stride 8. The table's own grid is taken to be square; one that is not is
    left alone, for the loader to refuse by its shape.
    """
    fitted = dict(state_dict)
    table = fitted.get(_TABLE)
    if table is None or table.ndim != 3 or table.shape == model.pos_embed.shape:
        return fitted
    side = math.isqrt(table.shape[1] - 1)
    if side * side == table.shape[1] - 1:
        fitted[_TABLE] = resample_positions(table, (side, side), model.grid_size)
    return fitted
