"""Influence against the exact Jacobian, and what it says of mixers whose reach is known."""

import pytest
import torch
from torch.autograd.functional import jacobian

from semabench.evaluation.influence import influence, side_of_half
from semabench.mixers import create_mixer


def exact(function, x, place):
    rows = jacobian(lambda x: function(x)[0, place[0], place[1]], x)  # (C, 1, H, W, C)
    return rows.square().sum(dim=(0, 1, 4)).sqrt()


@pytest.mark.parametrize("name", ["softmax", "linear", "ssm", "sema"])
def test_it_estimates_the_norm_of_the_jacobian(name):
    torch.manual_seed(0)
    mixer = create_mixer(name, 32, 2).double().eval()
    x = torch.randn(1, 5, 6, 32).double()
    place = torch.tensor([2, 3])
    found, expected = influence(mixer, x, place, 3)[0], exact(mixer, x, place)
    assert found.shape == (5, 6)
    assert float((found - expected).norm() / expected.norm()) < 0.2
    assert torch.equal(found, influence(mixer, x, place, 3)[0])


def test_a_window_reaches_no_further_and_a_mean_everywhere_alike():
    torch.manual_seed(0)
    x, place = torch.randn(1, 14, 14, 16).double(), torch.tensor([3, 3])
    window = create_mixer("window", 16, 1, window_size=7, lepe=False).double()
    found = influence(window, x, place, 3)[0]
    assert (found[:7, :7] > 0).all()
    assert (found[7:] == 0).all()
    assert (found[:, 7:] == 0).all()
    mean = influence(create_mixer("mean", 16, 1, lepe=False).double(), x, place, 3)[0]
    assert mean.std() < 1e-9 * mean.mean()


def test_the_square_that_holds_half():
    field = torch.zeros(9, 9)
    field[4, 4] = 1.0
    assert side_of_half(field, (4, 4)) == 1
    field[4, 7] = 2.0
    assert side_of_half(field, (4, 4)) == 7
    assert side_of_half(torch.ones(8, 8), (4, 4)) == 7  # 36 of 64 tokens, at the rim
