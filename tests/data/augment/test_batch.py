"""Batched operations against timm's on Pillow images, one by one and together."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_train
from torch.utils._python_dispatch import TorchDispatchMode

from semabench.config.schema import RecipeConfig
from semabench.data.augment.batch import (
    BatchAugment,
    PixelAugment,
    apply_layer,
    pixel_augment,
    send,
)
from semabench.data.augment.plan import NONE, OPS, Layer, arguments, parse_rand_augment
from semabench.data.draws import Samples
from semabench.data.folder import apply_operation, augment_image

GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
FILL = (124, 116, 104)
PUBLISHED = PixelAugment(rand_augment=parse_rand_augment("rand-m9-mstd0.5-inc1"), seed=5)


def applied(pixels: torch.Tensor, layer: Layer, interpolation: str = "bicubic") -> torch.Tensor:
    out = pixels.clone()
    fill = torch.tensor(FILL, dtype=torch.uint8, device=out.device)
    apply_layer(out, layer, fill, interpolation)
    return out


def by_timm(pixels: torch.Tensor, name: str, values, interpolation: str) -> torch.Tensor:
    augment = PixelAugment(fill=FILL, interpolation=interpolation)
    made = [
        apply_operation(Image.fromarray(image.numpy()), name, float(value), augment)
        for image, value in zip(pixels, values, strict=True)
    ]
    return torch.stack([torch.from_numpy(np.array(image)) for image in made])


def batched(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2)


def psnr(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(10 * torch.log10(255**2 / (ours.float() - theirs.float()).square().mean()))


@pytest.mark.parametrize("name", [name for name in OPS if name not in GEOMETRY])
def test_operations_on_values_equal_pillows_to_the_bit(name, images):
    op = np.full(len(images), OPS.index(name))
    for level in (0.0, 0.7, 5.0, 8.3, 9.0, 10.0):
        for negative in (False, True):
            for increasing in (False, True):
                signs = np.full(len(op), negative)
                values = arguments(op, np.full(len(op), level), signs, increasing)
                expected = by_timm(images, name, values, "bicubic")
                assert torch.equal(applied(images, Layer(op, values)), expected), level


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_is_pillows_but_for_rounding(name, interpolation, images):
    op = np.full(len(images), OPS.index(name))
    for level in (0.0, 0.7, 5.0, 8.3, 9.0, 10.0):
        for negative in (False, True):
            levels, signs = np.full(len(op), level), np.full(len(op), negative)
            values = arguments(op, levels, signs, True)
            expected = by_timm(images, name, values, interpolation)
            ours = applied(images, Layer(op, values), interpolation)
            difference = (ours.int() - expected.int()).abs()
            assert difference.max() <= 1
            # At fractions like 0.8 many a value is whole, but for Pillow's own rounding before it
            # cuts off. Drawn levels have no such fractions: see the photographs below.
            assert (difference > 0).float().mean() < 0.03
            assert torch.equal(ours[:3], expected[:3])  # flat ones: no value lost to rounding


def test_samples_of_a_layer_are_worked_on_each_by_its_own_operation(images):
    rng = np.random.default_rng(1)
    ops = rng.permutation(np.concatenate([np.arange(len(OPS)), np.full(5, NONE)]))
    values = arguments(ops.clip(0), rng.uniform(0, 10, 20), rng.random(20) < 0.5, True)
    together = applied(images, Layer(ops, values))
    for slot, op in enumerate(ops):
        alone = Layer(ops[slot : slot + 1], values[slot : slot + 1])
        expected = applied(images[slot : slot + 1], alone)[0]
        assert torch.equal(together[slot], expected)
        assert op != NONE or torch.equal(expected, images[slot])


@pytest.mark.parametrize("augment", [PUBLISHED, PixelAugment(color_jitter=0.4)])
def test_an_image_comes_out_the_same_in_any_batch(augment, images):
    model = BatchAugment(augment, 0.25, seed=5)
    keys = np.arange(100, 120)
    together = model.change(batched(images), Samples(3, keys))
    assert together.is_contiguous(memory_format=torch.channels_last)
    assert together.dtype == torch.uint8
    order = np.random.default_rng(0).permutation(20)[:7]
    parts = model.change(batched(images)[order], Samples(3, keys[order]))
    assert torch.equal(parts, together[order])
    erased = model.erase(together.float(), Samples(3, keys))
    assert torch.equal(model.erase(parts.float(), Samples(3, keys[order])), erased[order])
    assert not torch.equal(model.change(batched(images), Samples(4, keys)), together)


def test_the_batchs_own_memory_is_not_written_to(images):
    images = batched(images).clone(memory_format=torch.channels_last)
    before = images.clone()
    BatchAugment(PUBLISHED, 0.0, seed=0).change(images, Samples(0, np.arange(20)))
    assert torch.equal(images, before)


def test_without_augmentation_nothing_happens(images):
    model = BatchAugment(PixelAugment(), 0.0, seed=0)
    images = batched(images)
    assert model.change(images, Samples(0, np.arange(20))) is images
    assert model.erase(images, Samples(0, np.arange(20))) is images


def test_a_recipe_becomes_what_timms_create_transform_makes_of_it():
    mean = (0.485, 0.456, 0.406)
    recipe = RecipeConfig(name="r", rand_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4)
    ours = pixel_augment(recipe, seed=0, mean=mean, interpolation="bicubic")
    timm = transforms_imagenet_train(
        auto_augment=recipe.rand_augment, color_jitter=0.4, interpolation="bicubic", mean=mean
    )
    names = [type(step).__name__ for step in timm.transforms]
    assert "RandAugment" in names
    assert "ColorJitter" not in names  # nor with us:
    assert len(ours.plan(Samples(0, np.arange(3)))) == 2
    step = timm.transforms[names.index("RandAugment")].ops[0]
    assert step.kwargs["fillcolor"] == ours.fill
    assert step.kwargs["resample"] == Image.Resampling[ours.interpolation.upper()]
    alone = RecipeConfig(name="r", color_jitter=0.4)
    assert len(pixel_augment(alone, seed=0, mean=mean, interpolation="area").plan(
        Samples(0, np.arange(3))
    )) == 3  # fmt: skip


class Operations(TorchDispatchMode):
    """Counts what would be launched on a device, and notes what would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.waits = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        if any(word in str(func) for word in ("_local_scalar", "nonzero", "unique", "masked_sel")):
            self.waits.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_batch_takes_few_launches_and_waits_for_none():
    model = BatchAugment(PUBLISHED, 0.25, seed=0)
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    with Operations() as operations:
        changed = model.change(images, Samples(0, np.arange(256)))
    assert operations.count <= 300
    with Operations() as erasing:
        model.erase(changed.float(), Samples(0, np.arange(256)))
    assert erasing.count <= 40
    assert not operations.waits + erasing.waits


def test_arrays_travel_together():
    arrays = [
        np.arange(3, dtype=np.int64),
        np.arange(10, dtype=np.uint8).reshape(2, 5),
        np.zeros((0, 4), np.float32),
        np.linspace(0, 1, 6).reshape(3, 2).T,
    ]
    for array, sent in zip(arrays, send(arrays, torch.device("cpu")), strict=True):
        assert torch.equal(sent, torch.from_numpy(array.copy()))


@pytest.fixture(scope="session")
def photographs(photographs_dir) -> torch.Tensor:
    """uint8 (24, 224, 224, 3)."""
    paths = sorted(photographs_dir.glob("*/*/*.jpg"))
    opened = [Image.open(path).convert("RGB").resize((224, 224)) for path in paths]
    return torch.stack([torch.from_numpy(np.array(image)) for image in opened])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("name", GEOMETRY)
def test_photographs_move_as_pillow_moves_them(name, interpolation, photographs):
    rng = np.random.default_rng(0)
    op = np.full(len(photographs), OPS.index(name))
    values = arguments(op, rng.uniform(0, 10, len(op)), rng.random(len(op)) < 0.5, True)
    expected = by_timm(photographs, name, values, interpolation)
    ours = applied(photographs, Layer(op, values), interpolation)
    assert (ours.int() - expected.int()).abs().max() <= 1
    assert (ours != expected).float().mean() < 2e-3
    assert psnr(ours, expected) > 75


def test_photographs_side_by_side(photographs, tmp_path):
    """Originals, ours and timm's below one another; SEMABENCH_ARTEFACTS says where to keep them."""
    pixels = photographs
    opened = [Image.fromarray(image.numpy()) for image in pixels]
    folder = Path(os.environ.get("SEMABENCH_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for title, augment in (("randaugment", PUBLISHED), ("jitter", PixelAugment(color_jitter=0.4))):
        samples = Samples(1, np.arange(len(pixels)))
        ours = BatchAugment(augment, 0.0, seed=5).change(batched(pixels), samples)
        ours = ours.permute(0, 2, 3, 1)
        theirs = [augment_image(p, augment, 1, key) for key, p in enumerate(opened)]
        theirs = torch.stack([torch.from_numpy(np.array(image)) for image in theirs])
        sheet = torch.cat([torch.cat(list(row), 1) for row in (pixels, ours, theirs)])
        Image.fromarray(sheet.numpy()).save(folder / f"{title}.png")
        assert psnr(ours, theirs) > 60
        assert (ours != theirs).float().mean() < 5e-3
        assert (ours != pixels).any(dim=(1, 2, 3)).float().mean() > 0.6


@pytest.mark.gpu
def test_the_device_makes_no_difference_and_is_not_waited_for(images):
    model = BatchAugment(PUBLISHED, 0.5, seed=5)
    pixels = images.repeat(12, 1, 1, 1)
    samples = Samples(3, np.arange(len(pixels)))
    expected = model.change(batched(pixels), samples)
    noisy = model.erase(expected.float(), samples)
    on_device = model.cuda()
    images = batched(pixels).cuda()
    for _ in range(2):  # the first call fills caches
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            ours = on_device.change(images, samples)
            erased = on_device.erase(ours.float(), samples)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert psnr(ours.cpu(), expected) > 60
    torch.testing.assert_close(on_device.erase(expected.cuda().float(), samples).cpu(), noisy)
    assert torch.isfinite(erased).all()
