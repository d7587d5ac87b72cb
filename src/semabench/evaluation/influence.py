"""What a place of a grid depends on: how strongly its output follows each of the inputs.

For any mixer alike, attention or not: the norm of the Jacobian ∂out_q / ∂x_j. Of softmax attention
it is large where the weights are; a mean has the same for all tokens but the query's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PROBES = 16  # random vectors over which the squared norm is averaged


def influence(
    function: Callable[[Tensor], Tensor], inputs: Tensor, place: Tensor, channels: int
) -> Tensor:
    """Return ‖∂ out[place] / ∂ x_j‖_F for every place j of the inputs, (B, H, W).

    By Hutchinson's estimate: for random signs r, E ‖Jᵀr‖² = ‖J‖_F². The relative error of a place
    is about √(2 / PROBES).

    Args:
        function: (B, …) to (B, …, C).
        inputs: (B, H, W, C), or images (B, C, H, W).
        place: indices into the output's dimensions between the first and the last.
        channels: dimension of ``inputs`` that holds channels, which are summed over.
    """
    x = inputs.detach().requires_grad_()
    out = function(x)[(slice(None), *place.tolist())]
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros_like(x)
    for probe in range(PROBES):
        signs = torch.randint(0, 2, out.shape, generator=generator).to(out) * 2 - 1
        (gradient,) = torch.autograd.grad((out * signs).sum(), x, retain_graph=probe < PROBES - 1)
        total += gradient.square()
    return (total / PROBES).sum(channels).sqrt()


def side_of_half(field: Tensor, centre: tuple[int, int]) -> int:
    """Return the side of the smallest square around a place that holds half of a field's energy.

    Args:
        field: (H, W), its square is the energy.
        centre: the place.
    """
    energy = field.double().square()
    whole = float(energy.sum())
    for reach in range(max(field.shape)):
        top, left = max(0, centre[0] - reach), max(0, centre[1] - reach)
        square = energy[top : centre[0] + reach + 1, left : centre[1] + reach + 1]
        if float(square.sum()) >= whole / 2:
            return 2 * reach + 1
    return max(field.shape)
