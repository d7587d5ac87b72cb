"""Statistics in one pass over the keys: against all n×n weights, and where they are known."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semabench.evaluation.dispersion.statistics import NAMES, disperse
from semabench.mixers import create_mixer
from semabench.ops.generalized_attention import (
    Kernel,
    Phi,
    generalized_attention,
    generalized_weights,
    tokens,
)

TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def inputs(side, *, heads=2, d=8, bound=1.0, seed=0, B=2):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.rand(3, B, side, side, heads, d, generator=generator, dtype=torch.float64)
    return bound * (2 * q - 1), bound * (2 * k - 1), v


def naive(kernel, q, k, v, rows):
    """The same from all weights, by the definitions."""
    n = q.shape[1] * q.shape[2]
    weights = generalized_weights(kernel, q, k)[:, :, rows]
    share = weights.abs() / weights.abs().sum(dim=-1, keepdim=True)
    entropy = -torch.special.xlogy(share, share).sum(dim=-1)
    mean = tokens(v).mean(dim=-2, keepdim=True)
    out = tokens(generalized_attention(kernel, q, k, v))[:, :, rows]
    return {
        "n_max_weight": n * weights.abs().amax(dim=-1),
        "n_min_weight": n * weights.amin(dim=-1),
        "entropy_ratio": entropy / math.log(n),
        "effective_keys": entropy.exp(),
        "weight_sum": weights.sum(dim=-1),
        "mean_distance": (out - mean).norm(dim=-1) / mean.norm(dim=-1),
    }


@pytest.mark.parametrize("elements", [1, 57, 10**9])
@pytest.mark.parametrize("bound", [0.5, 20.0])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("softmax", {}),
        ("linear", {}),
        ("mila", {}),
        ("focused", {}),
        ("window", {"window_size": 3}),
        ("sema", {"window_size": 4, "shift": True}),
    ],
)
def test_the_stream_equals_all_weights_at_once(name, options, bound, elements):
    kernel = create_mixer(name, 16, 2, **options).double().kernel()
    q, k, v = inputs(7, bound=bound)
    rows = torch.tensor([0, 5, 24, 48])
    found = disperse(kernel, q, k, v, rows, elements)
    for field, expected in naive(kernel, q, k, v, rows).items():
        torch.testing.assert_close(getattr(found, field), expected, **TIGHT, msg=field)
    assert (found.n_max_weight <= found.weight_bound * (1 + 1e-9)).all()
    assert ((found.keys < 49) if name in ("window", "sema") else (found.keys == 49)).all()


@settings(deadline=None, max_examples=40)
@given(
    side=st.integers(1, 9),
    bound=st.floats(0, 3),
    elements=st.integers(1, 500),
    name=st.sampled_from(["softmax", "linear", "focused", "window"]),
    seed=st.integers(0, 10**6),
)
def test_bounds_hold_for_any_input(side, bound, elements, name, seed):
    kernel = replace(create_mixer(name, 4, 1).double().kernel(), eps=0.0)
    q, k, v = inputs(side, heads=1, d=4, bound=bound, seed=seed, B=1)
    n = side * side
    found = disperse(kernel, q, k, v, torch.arange(n), elements)
    slack = 1 + 1e-9
    assert (found.n_max_weight <= found.weight_bound * slack).all()
    assert (found.n_max_weight * slack >= n / found.keys).all()
    assert (found.effective_keys <= found.keys * slack).all()
    assert (found.effective_keys * slack >= 1).all()
    if name != "window":
        assert (found.n_min_weight * found.weight_bound * slack >= 1).all()
    torch.testing.assert_close(found.weight_sum, torch.ones_like(found.weight_sum))


def test_equal_logits_give_the_mean():
    q, k, v = inputs(6)
    found = disperse(Kernel(), torch.zeros_like(q), k, v, torch.arange(36), 100)
    for name in ("n_max_weight", "n_min_weight", "entropy_ratio", "weight_bound"):
        torch.testing.assert_close(getattr(found, name), torch.ones(2, 2, 36).double(), **TIGHT)
    assert found.mean_distance.max() < 1e-12
    assert found.effective_keys.sub(36).abs().max() < 1e-9


@pytest.mark.parametrize("logit", [1e3, 1e5])
def test_one_key_that_takes_all_neither_overflows_nor_spreads(logit):
    q = torch.ones(1, 4, 4, 1, 1, dtype=torch.float64)
    k = torch.zeros_like(q)
    k[0, 2, 3] = logit
    v = torch.arange(16.0).double().view(1, 4, 4, 1, 1)
    found = disperse(Kernel(), q, k, v, torch.arange(16), 48)
    assert (found.n_max_weight == 16).all()
    assert (found.entropy_ratio == 0).all()
    assert (found.effective_keys == 1).all()
    torch.testing.assert_close(
        found.mean_distance, torch.full_like(q, 3.5 / 7.5)[..., 0].view(1, 1, 16)
    )


def test_two_keys_of_sixteen_by_hand():
    kernel = Kernel(phi=Phi.IDENTITY)
    q = torch.ones(1, 4, 4, 1, 1, dtype=torch.float64)
    k = torch.zeros_like(q)
    k.view(-1)[3], k.view(-1)[9] = 1.0, 3.0
    found = disperse(kernel, q, k, torch.ones_like(q), torch.tensor([0]), 5)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found.n_max_weight.item() == pytest.approx(12)
    assert found.n_min_weight.item() == 0
    assert found.effective_keys.item() == pytest.approx(math.exp(entropy))
    assert found.entropy_ratio.item() == pytest.approx(entropy / math.log(16))
    assert found.weight_bound.item() == math.inf


def test_a_lone_token_is_its_own_mean():
    q, k, v = inputs(1)
    found = disperse(create_mixer("window", 16, 2).double().kernel(), q, k, v, torch.tensor([0]))
    for name in ("n_max_weight", "entropy_ratio", "effective_keys", "keys"):
        assert (getattr(found, name) == 1).all(), name
    assert found.mean_distance.max() < 1e-12


def test_half_precision_is_summed_in_double():
    q, k, v = (x.bfloat16() for x in inputs(8, bound=2))
    kernel = create_mixer("softmax", 16, 2).kernel()
    rows = torch.arange(0, 64, 7)
    found = disperse(kernel, q, k, v, rows, 300)
    wide = disperse(kernel, q.double(), k.double(), v.double(), rows)
    for name in NAMES:
        assert getattr(found, name).dtype == torch.float64
        torch.testing.assert_close(getattr(found, name), getattr(wide, name), rtol=1e-5, atol=1e-6)
