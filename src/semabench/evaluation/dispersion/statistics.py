"""Statistics of attention weights for a sample of queries, in one pass over the keys.

No n×n matrix exists at any time: keys come in blocks, and of each query's row only sums are kept,
relative to its largest log weight so far (online log-sum-exp, and the same for the entropy).
Everything is summed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from semabench.ops.generalized_attention import Kernel, Phi, tokens

ELEMENTS = 1 << 22  # logits held at once: 32 MiB each of a few arrays


@dataclass(frozen=True)
class Dispersion:
    """What became of each sampled query's weights α_1 … α_n; every field is (B, heads, queries).

    Attributes:
        n_max_weight: n·max |α|, 1 for the mean.
        n_min_weight: n·min α, 1 for the mean; 0 with a window smaller than the grid.
        entropy_ratio: entropy of |α| / Σ|α|, over log n: 1 for the mean; 1 if n is 1.
        effective_keys: exp(entropy), 1 to n.
        weight_sum: Σ α; one but for an eps, and but for normalisers of their own (MILA).
        weight_bound: n·M / (m·keys in reach), which no n·|α| exceeds: M = max |φ| over this query's
            logits, m = min φ over those of the denominator. Infinite where m is not positive.
        keys: in reach of the query: n, or those of its window.
        mean_distance: ‖Σ α_l v_l − mean(V)‖ / ‖mean(V)‖, of each head by itself.
    """

    n_max_weight: Tensor
    n_min_weight: Tensor
    entropy_ratio: Tensor
    effective_keys: Tensor
    weight_sum: Tensor
    weight_bound: Tensor
    keys: Tensor
    mean_distance: Tensor


NAMES = tuple(field.name for field in fields(Dispersion))


def disperse(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, elements: int = ELEMENTS
) -> Dispersion:
    """Measure the weights of the queries ``rows`` over all keys.

    Args:
        kernel: which attention.
        q, k, v: (B, H, W, heads, d), as projected, before ψ.
        rows: (queries,) int64 on their device, positions among the n = H·W tokens.
        elements: logits that may be held at once; blocks of keys are cut to that.
    """
    B, H, W, heads, _ = q.shape
    n = H * W
    queries, keys = tokens(kernel.psi_q(q))[:, :, rows].double(), tokens(kernel.psi_k(k))
    apart = None
    if kernel.normalizer is not None:
        map_q, map_k = kernel.normalizer
        apart = (tokens(map_q(q))[:, :, rows].double(), tokens(map_k(k)))
    values = tokens(v)
    label = kernel.labels(H, W, q.device)
    sums = _Sums(kernel, queries, values.shape[-1])
    block = max(1, elements // (B * heads * len(rows)))
    for start in range(0, n, block):
        part = slice(start, min(start + block, n))
        logits = queries @ keys[:, :, part].double().transpose(-2, -1)
        reach = None if label is None else label[rows][:, None] == label[None, part]
        sums.add(logits, values[:, :, part].double(), reach)
        if apart is not None:
            sums.add_totals(apart[0] @ apart[1][:, :, part].double().transpose(-2, -1), reach)
    return sums.finish(n, values.double().mean(dim=-2, keepdim=True))


class _Sums:
    """The sums over the keys so far, each (B, heads, queries), of e = |φ| / exp(top).

    ``top`` is the largest log |φ| so far; when it rises, the sums are brought to the new scale.
    """

    def __init__(self, kernel: Kernel, queries: Tensor, value_dim: int) -> None:
        self.kernel = kernel
        shape = queries.shape[:-1]
        zero = queries.new_zeros(shape)
        self.top = torch.full_like(zero, -math.inf)
        self.absolute = zero  # Σ e
        self.signed = zero  # Σ ±e
        self.log = zero  # Σ e log e
        self.out = queries.new_zeros(*shape, value_dim)  # Σ ±e v
        self.lowest = torch.full_like(zero, math.inf)  # min φ, not scaled; log φ if φ = exp
        self.keys = zero
        self.total: Tensor | None = None  # Σ φ of a normaliser of its own, not scaled
        self.lowest_total = torch.full_like(zero, math.inf)

    def add(self, logits: Tensor, values: Tensor, reach: Tensor | None) -> None:
        """Take in a block of keys: logits (B, heads, queries, block), reach (queries, block)."""
        phi = self.kernel.phi
        log = phi.log_abs(logits)
        if reach is not None:
            log = log.masked_fill(~reach, -math.inf)
            logits = logits.masked_fill(~reach, math.inf)  # for the minimum alone
        top = torch.maximum(self.top, log.amax(dim=-1))
        self._rescale(top)
        relative = log - _finite(top)[..., None]
        weight = relative.exp()
        signed = weight * phi.sign(logits)
        self.absolute = self.absolute + weight.sum(dim=-1)
        self.signed = self.signed + signed.sum(dim=-1)
        self.log = self.log + torch.where(weight > 0, weight * relative, 0).sum(dim=-1)
        self.out = self.out + signed @ values
        self.lowest = torch.minimum(self.lowest, logits.amin(dim=-1))
        self.keys = self.keys + (logits.shape[-1] if reach is None else reach.sum(dim=-1))

    def _rescale(self, top: Tensor) -> None:
        """Bring the sums from exp(self.top) to exp(top): e log e gains a term, by the product."""
        shift = torch.where(self.top.isfinite(), self.top - top, 0)
        factor = shift.exp()
        self.log = factor * (self.log + shift * self.absolute)
        self.absolute = factor * self.absolute
        self.signed = factor * self.signed
        self.out = factor[..., None] * self.out
        self.top = top

    def add_totals(self, logits: Tensor, reach: Tensor | None) -> None:
        """Take in the denominator's own logits of the same block."""
        values = low = self.kernel.phi(logits)
        if reach is not None:
            values, low = values.masked_fill(~reach, 0), values.masked_fill(~reach, math.inf)
        self.lowest_total = torch.minimum(self.lowest_total, low.amin(dim=-1))
        self.total = values.sum(dim=-1) + (0 if self.total is None else self.total)

    def finish(self, n: int, mean: Tensor) -> Dispersion:
        """Return the statistics; ``mean`` of the values is (B, heads, 1, d)."""
        scale = _finite(self.top).exp()
        lowest, eps = self.lowest, n * self.kernel.eps / scale
        if self.total is None:
            total, lowest_total = self.signed + eps, lowest
        else:
            total, lowest_total = self.total / scale + eps, self.lowest_total
        entropy = self.absolute.log() - self.log / self.absolute
        entropy = entropy.nan_to_num(0.0).clamp(0, math.log(n))
        out = self.out / total[..., None]
        distance = torch.linalg.vector_norm(out - mean, dim=-1)
        share = n / self.keys
        return Dispersion(
            n_max_weight=n * (self.absolute > 0) / total,
            n_min_weight=n * self._relative(lowest) / total * (self.keys == n),
            entropy_ratio=entropy / math.log(n) if n > 1 else torch.ones_like(entropy),
            effective_keys=entropy.exp(),
            weight_sum=self.signed / total,
            weight_bound=share / self._relative(lowest_total).clamp(min=0),
            keys=self.keys,
            mean_distance=distance / torch.linalg.vector_norm(mean, dim=-1),
        )

    def _relative(self, lowest: Tensor) -> Tensor:
        """Return φ at its smallest, over exp(top)."""
        if self.kernel.phi is Phi.EXP:  # lowest is a logit
            return (lowest - self.top).exp()
        return lowest / _finite(self.top).exp()


def _finite(top: Tensor) -> Tensor:
    """Return 0 for -inf, the log of a row of zeros."""
    return torch.where(top.isfinite(), top, 0)


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
                **{name: _number(column[head].item()) for name, column in columns.items()},
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


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
