"""Draws: of the sample alone, and distributed as timm's and torchvision's."""

import random

import numpy as np
import torch
from scipy import stats
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import ColorJitter

from semabench.data.augment.plan import (
    NONE,
    OPS,
    parse_rand_augment,
    plan_color_jitter,
    plan_erasing,
    plan_rand_augment,
)
from semabench.data.draws import Samples

POLICY = parse_rand_augment("rand-m9-mstd0.5-inc1")
SURE = 1e-4  # one such test in 10,000 would fail by chance; the seeds are fixed


def plans(seed: int, epoch: int, keys: np.ndarray) -> list[np.ndarray]:
    """Every array that is drawn, one row a sample; boxes of samples that have none are -1."""
    boxes = plan_erasing(0.25, 224, seed, epoch, keys)
    rectangles = np.full((len(keys), 5), -1)
    rectangles[boxes.slots] = np.stack(boxes[1:], 1)
    layers = plan_rand_augment(POLICY, seed, epoch, keys)
    layers += plan_color_jitter(0.4, seed, epoch, keys)
    return [rectangles, *[array for layer in layers for array in layer]]


def test_draws_depend_on_seed_epoch_and_sample_alone():
    keys = np.random.default_rng(0).permutation(5000)[:64]
    together = plans(7, 3, keys)
    for slot in (0, 5, 63):
        for whole, alone in zip(together, plans(7, 3, keys[slot : slot + 1]), strict=True):
            assert np.array_equal(whole[slot], alone[0])
    for other in (plans(8, 3, keys), plans(7, 4, keys), plans(7, 3, keys + 5000)):
        assert all(not np.array_equal(a, b) for a, b in zip(together, other, strict=True))


def test_draws_are_pinned():
    # Runs that resume with newer libraries must draw what they would have drawn.
    first, second = plan_rand_augment(POLICY, 1, 2, np.arange(6))
    boxes = plan_erasing(0.5, 224, 1, 2, np.arange(6))
    assert first.ops.tolist() == [-1, -1, 9, 9, -1, -1]
    assert second.ops.tolist() == [2, -1, 14, 6, 13, 14]
    assert np.stack(boxes, 1)[:2, :5].tolist() == [[0, 85, 51, 87, 127], [2, 57, 102, 51, 117]]


def test_operations_and_magnitudes_are_distributed_as_timms():
    n = 12_000
    layers = plan_rand_augment(POLICY, 11, 0, np.arange(n))
    ours = {name: [] for name in (*OPS, "none")}
    for layer in layers:
        for op, value in zip(layer.ops, layer.values, strict=True):
            ours["none" if op == NONE else OPS[op]].append(value)

    transform = rand_augment_transform("rand-m9-mstd0.5-inc1", {})
    theirs = {name: [] for name in OPS}
    for op in transform.ops:
        taken = theirs[op.name.replace("Increasing", "")]
        op.aug_fn = lambda image, value=0.0, taken=taken, **_: taken.append(value)
    random.seed(1)
    np.random.seed(1)
    for _ in range(n):
        transform(None)
    theirs["none"] = [0.0] * (2 * n - sum(map(len, theirs.values())))

    table = [[len(drawn[name]) for name in ours] for drawn in (ours, theirs)]
    assert stats.chi2_contingency(table).pvalue > SURE
    expected = [n / 15] * 15 + [n]
    assert stats.chisquare(table[0], expected).pvalue > SURE
    for name in OPS:
        assert stats.ks_2samp(ours[name], theirs[name]).pvalue > SURE, name
        assert min(ours[name]) >= min(theirs[name]) - 0.2 * np.ptp(theirs[name])
        assert max(ours[name]) <= max(theirs[name]) + 0.2 * np.ptp(theirs[name])
    # Layers are independent of each other.
    pairs = np.histogram2d(layers[0].ops, layers[1].ops, bins=16)[0]
    assert stats.chi2_contingency(pairs).pvalue > SURE


def test_color_jitter_is_distributed_as_torchvisions():
    n = 4000
    layers = plan_color_jitter(0.4, 11, 0, np.arange(n))
    ours = {name: np.empty(n) for name in ("Brightness", "Contrast", "Color")}
    orders = np.stack([layer.ops for layer in layers], 1)
    for layer in layers:
        for name, values in ours.items():
            rows = layer.ops == OPS.index(name)
            values[rows] = layer.values[rows]
    torch.manual_seed(0)
    jitter = ColorJitter(0.4, 0.4, 0.4)
    theirs = [
        jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, None)
        for _ in range(n)
    ]
    for place, values in enumerate(ours.values(), start=1):
        assert stats.ks_2samp(values, [drawn[place] for drawn in theirs]).pvalue > SURE
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > SURE


def test_rectangles_are_distributed_as_timms():
    n, size = 4000, 64
    boxes = plan_erasing(0.25, size, 3, 0, np.arange(n))
    random.seed(2)
    torch.manual_seed(2)
    erasing = RandomErasing(0.25, mode="pixel", device="cpu")
    theirs = []
    for _ in range(n):
        image = torch.zeros(1, size, size)
        erasing(image)
        rows, columns = (image[0] != 0).any(1).nonzero(), (image[0] != 0).any(0).nonzero()
        if len(rows):
            theirs.append((int(rows[0]), int(columns[0]), len(rows), len(columns)))
    assert stats.binomtest(len(boxes.slots), n, 0.25).pvalue > SURE
    assert stats.binomtest(len(theirs), n, 0.25).pvalue > SURE
    for ours, drawn in zip(boxes[1:5], np.array(theirs).T, strict=True):
        assert stats.ks_2samp(ours, drawn).pvalue > SURE
    assert ((boxes.tops >= 0) & (boxes.tops + boxes.heights <= size)).all()
    assert ((boxes.lefts >= 0) & (boxes.lefts + boxes.widths <= size)).all()
    assert len(set(boxes.seeds.tolist())) == len(boxes.seeds)


def test_samples_travel_with_a_batch_untouched():
    from lightning.fabric.utilities.apply_func import move_data_to_device

    samples = Samples(3, np.arange(4))
    moved = move_data_to_device((torch.zeros(1), samples), torch.device("cpu"))[1]
    assert isinstance(moved, Samples)
    assert moved.epoch == 3
    assert moved.keys is samples.keys
