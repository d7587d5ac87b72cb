"""The schedule at its corners, and who is decayed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from semabench.config.schema import RecipeConfig
from semabench.errors import SemabenchError
from semabench.models import build_model
from semabench.training.optim import (
    create_optimizer,
    ema_decay,
    learning_rate,
    rate_factor,
)
from semabench.training.step import Objective, TrainStep

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


def test_a_step_sets_what_the_function_says():
    model = nn.Linear(2, 2)
    optimizer = create_optimizer(model, RECIPE)
    step = TrainStep(model, optimizer, rate_factor(RECIPE, 5), Objective())
    at = learning_rate(RECIPE, 5)
    for number in range(50):
        step(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), None, number)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(at(number))
        assert step.rates == [group["lr"] for group in optimizer.param_groups]


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


def test_rates_scale_with_the_batch_and_stay_at_the_minimum_in_the_cool_down():
    """MILA's: 5e-4, 5e-6 and 5e-7 for each 512 pictures; DeiT's cool-down."""
    recipe = RecipeConfig(
        name="r", epochs=12, warmup_epochs=2, cooldown_epochs=3, batch_size=2048, lr_batch_size=512,
        lr=5e-4, min_lr=5e-6, warmup_lr=5e-7,
    )  # fmt: skip
    at = learning_rate(recipe, 10)
    assert at(0) == pytest.approx(2e-6)
    assert at(20) == pytest.approx(2e-3)
    assert at(88) > at(89) == pytest.approx(2e-5)
    assert [at(step) for step in range(89, 120)] == [at(89)] * 31
    optimizer = create_optimizer(nn.Linear(2, 2), recipe)
    rate = optimizer.param_groups[0]["lr"] * rate_factor(recipe, 10)(0)
    assert rate == pytest.approx(2e-6)


def test_the_averaging_spans_the_same_pictures_at_any_batch():
    recipe = RecipeConfig(name="r", batch_size=1024, ema_decay=0.9996, ema_batch_size=4096)
    assert ema_decay(recipe) ** 4 == pytest.approx(0.9996)
    assert ema_decay(RecipeConfig(name="r", ema_decay=0.99)) == 0.99
    assert ema_decay(RecipeConfig(name="r")) is None


@pytest.mark.parametrize("decayed", [False, True])
def test_state_matrices_are_decayed_where_the_recipe_says_so(decayed):
    model = build_model("vmamba_nano", num_classes=2, resolution=32, options={})
    recipe = RecipeConfig(name="r", decay_state_matrix=decayed)
    optimizer = create_optimizer(model, recipe)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    matrices = [p for name, p in model.named_parameters() if name.endswith("A_logs")]
    skips = [p for name, p in model.named_parameters() if name.endswith("Ds")]
    assert matrices
    assert skips
    assert {decay[id(p)] for p in matrices} == {recipe.weight_decay if decayed else 0.0}
    assert {decay[id(p)] for p in skips} == {0.0}


@pytest.mark.parametrize("name", ["sema_nano", "vim_nano", "convnext_atto"])
def test_layers_learn_less_the_earlier_they_are(name):
    model = build_model(name, num_classes=2, resolution=32, options={})
    recipe = RecipeConfig(name="r", epochs=10, warmup_epochs=2, layer_decay=0.5)
    optimizer = create_optimizer(model, recipe)
    factor = rate_factor(recipe, 5)
    names = {id(p): name for name, p in model.named_parameters()}
    at = learning_rate(recipe, 5)
    for step in range(3):
        groups = optimizer.param_groups
        rates = {names[id(p)]: g["lr"] * factor(step) for g in groups for p in g["params"]}
        assert len(rates) == len(names)
        head = next(rate for name, rate in rates.items() if name.startswith("head"))
        assert head == pytest.approx(at(step))
        scales = [math.log2(head / rate) for rate in rates.values()]  # in the model's order
        assert all(scale == pytest.approx(round(scale)) for scale in scales)
        assert scales[0] == pytest.approx(max(scales)) != 0


def test_a_model_that_tells_no_layers_has_no_layer_decay():
    with pytest.raises(SemabenchError, match="Linear does not: leave it out"):
        create_optimizer(nn.Linear(2, 2), RecipeConfig(name="r", layer_decay=0.7))
