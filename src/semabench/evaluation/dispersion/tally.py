"""Sum up what the queries of one head found, over batches of pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from semabench.evaluation.dispersion.stream import NAMES, Dispersion, disperse
from semabench.ops.generalized_attention import Kernel, Phi

_MEANS = (
    "n_max_weight",
    "entropy_ratio",
    "effective_keys",
    "weight_sum",
    "mean_distance",
    "softmax_distance",
)


class Tally:
    """Means and extremes over queries and pictures, of each head."""

    def __init__(self) -> None:
        self._found: dict[str, list[Tensor]] = {}

    def add(self, found: Dispersion, softmax_distance: Tensor | None) -> None:
        """Take in a batch; all fields are (B, heads, queries)."""
        values = {name: getattr(found, name) for name in NAMES}
        if softmax_distance is not None:
            values["softmax_distance"] = softmax_distance
        for name, value in values.items():
            self._found.setdefault(name, []).append(value.transpose(0, 1).flatten(1).cpu())

    def rows(self) -> list[dict[str, float | int | None]]:
        """Return the numbers of a `Record`, head by head; None for what is not finite."""
        found = {name: torch.cat(parts, dim=1) for name, parts in self._found.items()}
        columns = {name: found[name].mean(dim=1) for name in _MEANS if name in found}
        columns["n_max_weight_highest"] = found["n_max_weight"].amax(dim=1)
        columns["n_min_weight"] = found["n_min_weight"].amin(dim=1)
        columns["weight_bound"] = found["weight_bound"].amax(dim=1)
        keys = found["keys"].amax(dim=1)
        return [
            {
                "keys": int(keys[head]),
                **{name: _finite(column[head].item()) for name, column in columns.items()},
            }
            for head in range(len(keys))
        ]


def add_weights(
    tally: Tally, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, rows: Tensor
) -> None:
    """Measure one batch of q, k and v, (B, H, W, heads, d), for the queries ``rows``.

    Where φ is exp, what is called ``softmax_distance`` is measured too: of softmax over all tokens.
    """
    found = disperse(kernel, q, k, v, rows)
    distance = None
    if kernel.phi is Phi.EXP:
        everywhere = kernel.everywhere()
        whole = found if everywhere is kernel else disperse(everywhere, q, k, v, rows)
        distance = whole.mean_distance
    tally.add(found, distance)


def sample_queries(n: int, count: int, seed: int) -> Tensor:
    """Return ``count`` of n positions, or all n, drawn without replacement; sorted, (count,)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n, generator=generator)[:count].sort().values


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
