"""Generalized attention: each mixer's weights are an instance of it, and the theorem's bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semabench.mixers import create_mixer, list_mixers
from semabench.ops.generalized_attention import (
    Kernel,
    Phi,
    generalized_attention,
    generalized_weights,
    identity,
    scaled,
    tokens,
)

DIM, HEADS = 16, 2
WITH_KERNEL = ["sema", "window", "softmax", "linear", "mila", "focused"]


def inputs(H, W, *, B=2, heads=HEADS, d=DIM // HEADS, bound=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.rand(3, B, H, W, heads, d, generator=generator, dtype=torch.float64) * 2 - 1
    return bound * q, bound * k, v


def test_the_mixers_that_have_one_are_those_with_queries_and_keys():
    found = [name for name in list_mixers() if create_mixer(name, DIM, HEADS).kernel() is not None]
    assert sorted(found) == sorted(WITH_KERNEL)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (9, 15)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("softmax", {}),
        ("softmax", {"scale": False, "rope": True}),
        ("window", {"window_size": 4}),
        ("window", {"window_size": (3, 5), "shift": True, "rope": True}),
        ("sema", {"scale": False}),
        ("linear", {}),
        ("linear", {"rope": True}),
        ("mila", {}),
        ("mila", {"rope": False}),
        ("focused", {"focusing_factor": 2.0}),
    ],
)
def test_a_kernel_gives_what_its_mixer_attends_to(name, options, size):
    mixer = create_mixer(name, DIM, HEADS, **options).double()
    q, k, v = inputs(*size)
    expected = generalized_attention(mixer.kernel(), q, k, v)
    if name == "sema":
        expected = expected + v.mean(dim=(1, 2), keepdim=True)
    if name == "focused":
        expected = expected + mixer.restore_rank(v)
    torch.testing.assert_close(mixer.attend(q, k, v), expected, rtol=0, atol=1e-12)


def test_a_mixer_attends_with_the_heads_it_tells():
    mixer = create_mixer("softmax", DIM, HEADS, lepe=False).double()
    x = torch.randn(2, 3, 4, DIM, dtype=torch.float64)
    q, k, v = mixer.heads(x)
    assert q.shape == k.shape == v.shape == (2, 3, 4, HEADS, DIM // HEADS)
    torch.testing.assert_close(mixer(x), mixer.attend(q, k, v).flatten(3))


KERNELS = {
    "softmax": Kernel(scaled(identity, True)),
    "linear": Kernel(lambda x: x.exp(), lambda x: x.exp(), Phi.IDENTITY),  # positive features
}


def extremes(name, bound, d):
    """m and M: φ over all logits that q and k in [-bound, bound]^d can reach."""
    if name == "softmax":
        return math.exp(-(bound**2) * d**0.5), math.exp(bound**2 * d**0.5)
    return d * math.exp(-2 * bound), d * math.exp(2 * bound)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(KERNELS)),
    side=st.integers(1, 12),
    d=st.integers(1, 8),
    bound=st.floats(0.01, 2),
    extreme=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_every_weight_lies_within_the_theorems_bounds(name, side, d, bound, extreme, seed):
    q, k, _ = inputs(side, side, B=1, heads=1, d=d, bound=bound, seed=seed)
    if extreme:  # corners of the box reach the bounds
        q, k = bound * q.sign(), bound * k.sign()
    weights = generalized_weights(KERNELS[name], q, k)
    n, (m, M) = side * side, extremes(name, bound, d)
    assert (weights >= m / (M * n) * (1 - 1e-9)).all()
    assert (weights <= M / (m * n) * (1 + 1e-9)).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_a_window_alone_keeps_weights_that_do_not_fall(name):
    """Four times the tokens: a quarter of the largest weight, but not within windows of 2 × 2."""
    options = {"window_size": 2} if name in ("sema", "window") else {}
    kernel = create_mixer(name, 8, 1, **options).double().kernel()
    largest = []
    for side in (8, 16):
        q, k, _ = inputs(side, side, B=1, heads=1, d=8)
        weights = generalized_weights(kernel, q, k).abs()
        assert weights.shape == (1, 1, side**2, side**2)
        largest.append(weights.amax(dim=-1).mean().item())
    ratio = largest[1] / largest[0]
    assert 0.9 < ratio < 1.1 if options else 0.2 < ratio < 0.35


def test_tokens_are_in_the_order_of_rows():
    x = torch.arange(6.0).view(1, 2, 3, 1, 1)
    assert tokens(x).flatten().tolist() == list(range(6))
