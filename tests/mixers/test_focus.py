"""A second look at the needle: how much one of n tokens can weigh, by hand and not by training."""

import pytest
import torch

from semabench.mixers import create_mixer


def weight_of_one(name, side, contrast=10.0):
    """The share of token (0, 0) in the answer at the centre; all others are alike.

    Its keys are +contrast in every channel before the feature map, theirs -contrast.
    """
    d = 4
    options = {"lepe": False} if name != "focused" else {"kernel_size": 1}
    mixer = create_mixer(name, d, 1, **options).double()
    q = torch.ones(1, side, side, 1, d, dtype=torch.float64)
    k, v = -contrast * q, torch.zeros_like(q)
    k[0, 0, 0], v[0, 0, 0] = contrast, 1
    if name == "mean":
        return v.mean(dim=(1, 2))[0, 0, 0].item()
    if name == "focused":
        mixer.dwc.weight.data.zero_()
        mixer.dwc.bias.data.zero_()
    return mixer.attend(q, k, v)[0, side // 2, side // 2, 0, 0].item()


@pytest.mark.parametrize("name", ["softmax", "linear", "focused"])
def test_attention_can_pick_one_of_16384_tokens(name):
    """Θ(1/n) has a constant: with features of ±10, n = 16,384 is not large yet."""
    assert weight_of_one(name, 128) > 0.9


def test_linear_attention_loses_it_where_the_contrast_is_what_256_tokens_need():
    weights = [weight_of_one("linear", side, contrast=4.0) for side in (16, 32, 64, 128)]
    assert weights[0] > 0.5
    assert weights[-1] < 0.02
    assert weight_of_one("softmax", 128, contrast=4.0) > 0.99


@pytest.mark.parametrize("name", ["mean", "sema"])
def test_a_mean_gives_a_distant_token_one_nth(name):
    for side in (32, 128):
        assert weight_of_one(name, side) == pytest.approx(1 / side**2)
