"""timm's notation and timm's arguments."""

import random

import numpy as np
import pytest
from timm.data.auto_augment import LEVEL_TO_ARG, rand_augment_transform

from semabench.data.augment.plan import OPS, RandAugment, arguments, parse_rand_augment
from semabench.errors import SemabenchError

INCREASING = {"Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness"}


def timm_name(name: str, increasing: bool) -> str:
    return f"{name}Increasing" if increasing and name in INCREASING else name


@pytest.mark.parametrize(
    "text", ["rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.3", "rand", "rand-inc1-mstd1", "rand-m9-inc0"]
)
def test_the_notation_means_what_it_means_in_timm(text):
    ours, theirs = parse_rand_augment(text), rand_augment_transform(text, {})
    op = theirs.ops[0]
    assert ours.layers == theirs.num_layers
    assert (ours.magnitude, ours.std, ours.prob) == (op.magnitude, op.magnitude_std, op.prob)
    assert [op.name for op in theirs.ops] == [timm_name(name, ours.increasing) for name in OPS]


def test_the_published_recipes_policy():
    assert parse_rand_augment("rand-m9-mstd0.5-inc1") == RandAugment(9, 0.5, 2, 0.5, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("original-mstd0.5", "must begin with 'rand-'"),
        ("rand-m9-mmax15", "'mmax15' is not supported; there are m, n, p, mstd, inc"),
        ("rand-tweights", "'tweights' is not supported"),
        ("rand-m9-mstd", "'mstd' is not supported"),
        ("rand-m9--inc1", "'' is not supported"),
        ("rand-m11", "m must be a whole number up to 10"),
        ("rand-m8.5", "m must be a whole number"),
        ("rand-n0", "n must be at least 1"),
        ("rand-p1.5", "p must be a number up to 1"),
    ],
)
def test_what_is_not_supported_is_told_in_one_line(text, message):
    with pytest.raises(SemabenchError, match=message) as error:
        parse_rand_augment(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("negative", [True, False])
@pytest.mark.parametrize("name", OPS)
def test_arguments_are_timms(name, negative, increasing, monkeypatch):
    levels = np.concatenate([np.linspace(0, 10, 101), np.random.default_rng(0).uniform(0, 10, 200)])
    ours = arguments(
        np.full(len(levels), OPS.index(name)), levels, np.full(len(levels), negative), increasing
    )
    monkeypatch.setattr(random, "random", lambda: 1.0 if negative else 0.0)
    function = LEVEL_TO_ARG[timm_name(name, increasing)]
    theirs = [0.0 if function is None else function(level, {})[0] for level in levels]
    np.testing.assert_allclose(ours, theirs, rtol=1e-15)
