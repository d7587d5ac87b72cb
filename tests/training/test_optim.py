"""The schedule at its corners, and who is decayed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

from helpers.configs import composed
from semabench.config.schema import RecipeConfig, TrainConfig, to_config
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


def official_rates(name: str, epochs: int, steps: int, batch: int) -> list[float]:
    """The rate of each step, by timm's scheduler as the official training loops call it.

    LeapLabTHU/MLLA@66b6d29 and MzeroMiko/VMamba@2ed52ea, lr_scheduler.py, main.py;
    hustvl/Vim@dd0358a, vim/main.py, whose scheduler counts epochs and whose cool-down is discarded.
    """
    scale = 1.0 if name == "vim_tiny" else batch / 512
    peak = 1e-3 if name == "vim_tiny" else 5e-4 * scale
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=peak)
    by_epoch = name == "vim_tiny"
    count = epochs if by_epoch else epochs * steps
    warmup = 5 if by_epoch else 20 * steps
    prefix = name == "vmamba"
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=count - warmup if prefix else count,
        lr_min=1e-5 if by_epoch else 5e-6 * scale,
        warmup_lr_init=1e-6 if by_epoch else 5e-7 * scale,
        warmup_t=warmup,
        warmup_prefix=prefix,
        cycle_limit=1,
        t_in_epochs=by_epoch,
    )
    rates = []
    for epoch in range(epochs):
        for index in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if not by_epoch:
                scheduler.step_update(epoch * steps + index)
        if by_epoch:
            scheduler.step(epoch)
    return rates


@pytest.mark.parametrize(
    ("name", "batch"),
    [("mila_tiny", 1024), ("mila_small", 512), ("mila_base", 512), ("vmamba", 1024),
     ("vim_tiny", 1024), ("vim_small", 512)],
)  # fmt: skip
def test_published_recipes_have_the_official_rates_at_every_step(name, batch):
    recipe = to_config(composed("train", [f"recipe={name}"]), TrainConfig).recipe
    assert (recipe.epochs, recipe.cooldown_epochs, recipe.batch_size) == (300, 0, batch)
    family = "vim_tiny" if name.startswith("vim") else name
    expected = official_rates(family, 300, 7, batch)
    at = learning_rate(recipe, 7)
    assert [at(step) for step in range(2100)] == pytest.approx(expected, rel=1e-12)


def test_official_rates_by_hand():
    """What the schedules differ in, without timm."""
    recipes = {
        name: to_config(composed("train", [f"recipe={name}"]), TrainConfig).recipe
        for name in ("mila_tiny", "vmamba", "vim_tiny", "vim_finetune")
    }
    mila, vmamba, vim, tune = (learning_rate(recipe, 100) for recipe in recipes.values())
    assert mila(0) == mila(1) == pytest.approx(1e-6)
    # Step 2000 is the ramp's last, at t = 1999; then the cosine, a fifteenth of its way down.
    assert mila(2000) == pytest.approx(1e-6 + 0.999e-3 * 1999 / 2000)
    assert mila(2001) == pytest.approx(1e-5 + 0.99e-3 * (1 + math.cos(math.pi / 15)) / 2)
    assert vmamba(2001) == pytest.approx(1e-3)
    assert [vim(100 * epoch) for epoch in (0, 1, 2, 6)] == pytest.approx(
        [1e-6, 1e-6, 1e-6 + 0.999e-3 / 5, 1e-5 + 0.99e-3 * (1 + math.cos(math.pi / 60)) / 2]
    )
    assert recipes["vim_finetune"].epochs == 30
    assert {tune(step) for step in range(0, 3000, 50)} == {1e-5}


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
