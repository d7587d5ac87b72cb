"""The schedule at its corners, and who is decayed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from semabench.config import RecipeConfig
from semabench.training.optimizer import create_optimizer, create_scheduler, learning_rate

RECIPE = RecipeConfig(name="r", epochs=10, warmup_epochs=2, lr=1e-3, min_lr=1e-5, warmup_lr=1e-6)


def test_warm_up_is_linear_and_ends_at_the_peak():
    at = learning_rate(RECIPE, 50)
    assert at(0) == pytest.approx(1e-6)
    assert at(50) == pytest.approx((1e-6 + 1e-3) / 2)
    assert at(100) == pytest.approx(1e-3)


def test_the_cosine_is_half_way_at_its_middle_and_ends_at_the_minimum():
    at = learning_rate(RECIPE, 50)
    assert at(499) == pytest.approx(1e-5)
    middle = (at(299) + at(300)) / 2
    assert middle == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-3)


@given(
    epochs=st.integers(1, 20),
    warmup=st.floats(0, 30),
    steps=st.integers(1, 40),
)
def test_the_rate_rises_then_falls_and_stays_in_range(epochs, warmup, steps):
    recipe = RecipeConfig(
        name="r", epochs=epochs, warmup_epochs=warmup, lr=1e-3, min_lr=1e-5, warmup_lr=1e-6
    )
    at = learning_rate(recipe, steps)
    rates = [at(step) for step in range(epochs * steps + 3)]
    assert all(math.isfinite(r) and 1e-6 <= r <= 1e-3 + 1e-12 for r in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_scheduler_sets_what_the_function_says():
    model = nn.Linear(2, 2)
    optimizer = create_optimizer(model, RECIPE)
    scheduler = create_scheduler(optimizer, RECIPE, 5)
    at = learning_rate(RECIPE, 5)
    for step in range(50):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(at(step))
        optimizer.step()
        scheduler.step()


def test_norms_biases_and_named_parameters_are_not_decayed():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.norm = nn.LayerNorm(3)
            self.position = nn.Parameter(torch.zeros(2, 3))
            self.frozen = nn.Parameter(torch.zeros(2, 3), requires_grad=False)

        def no_weight_decay(self):
            return {"position"}

    model = Model()
    optimizer = create_optimizer(model, RECIPE)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {
        id(model.linear.weight): RECIPE.weight_decay,
        id(model.linear.bias): 0.0,
        id(model.norm.weight): 0.0,
        id(model.norm.bias): 0.0,
        id(model.position): 0.0,
    }


def test_a_clipped_optimizer_is_not_fused(monkeypatch):
    """Lightning refuses to clip the gradients of a fused one under mixed precision."""
    model = nn.Linear(2, 2)
    monkeypatch.setattr(type(model.weight), "is_cuda", True)
    clipped = RecipeConfig(name="r", clip_grad=5.0)
    free = RecipeConfig(name="r", clip_grad=None)
    asked = []
    monkeypatch.setattr(torch.optim, "AdamW", lambda *_, fused, **__: asked.append(fused))
    create_optimizer(model, clipped)
    create_optimizer(model, free)
    assert asked == [False, True]
