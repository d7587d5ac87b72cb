"""The kernels of fixed shape against the operations on groups, on a GPU or in Triton's interpreter.

Triton decides which as it is first imported, so without a GPU these tests run in a process of their
own: see test_static.py.
"""

import os

import numpy as np
import pytest
import torch

from semabench.data.augment.batch import BatchAugment, Normalize, PixelAugment, noise
from semabench.data.augment.batch import apply_layer as apply_in_groups
from semabench.data.augment.plan import OPS, Layer, arguments, parse_rand_augment
from semabench.data.draws import Samples
from semabench.data.mixup import Mix

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run by test_static.py", allow_module_level=True)

from semabench.data.augment import kernels  # noqa: E402
from semabench.data.augment.static import StaticAugment, _terms  # noqa: E402

MOVES = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}


def images_of(batch: int, size: int, seed: int = 0) -> torch.Tensor:
    """Noise, then images of few values, of one value, and a gradient: NHWC."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator)
    x[1::4] = x[1::4] // 5 + 60
    x[2::4] = 7 + torch.arange(3, dtype=torch.uint8)
    x[3::4] = torch.linspace(0, 255, size).to(torch.uint8).view(1, 1, size, 1)
    return x


@pytest.mark.parametrize("size", [8, 21])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("increasing", [True, False])
def test_every_operation_equals_that_on_groups(size, interpolation, increasing):
    rng = np.random.default_rng(size)
    ops = np.repeat(np.arange(-1, len(OPS)), 4)
    values = arguments(
        ops.clip(0), rng.uniform(0, 10, len(ops)), rng.random(len(ops)) < 0.5, increasing
    )
    layer, pixels = Layer(ops, values), images_of(len(ops), size).to(DEVICE)
    fill = torch.tensor([124, 116, 104], dtype=torch.uint8, device=DEVICE)
    wanted = pixels.clone()
    apply_in_groups(wanted, layer, fill, interpolation)
    got = torch.empty_like(pixels)
    tables = torch.empty(len(ops), 3, 256, dtype=torch.uint8, device=DEVICE)
    of_host = ops.astype(np.int32), values, _terms(layer, size)
    given = [torch.from_numpy(array).to(DEVICE) for array in of_host]
    kernels.apply_layer(pixels, got, *given, tables, fill, interpolation == "bicubic")
    for k, op in enumerate(ops):
        off = (wanted[k].int() - got[k].int()).abs()
        if OPS[op] in MOVES and op >= 0:
            assert off.max() <= 1, OPS[op]
            assert (off > 0).float().mean() <= 0.01, OPS[op]
        else:
            assert off.max() == 0, (op, OPS[op])


@pytest.mark.parametrize(
    ("policy", "jitter", "erase", "alphas", "prob"),
    [
        ("rand-m9-mstd0.5-inc1", 0.0, 0.5, (0.8, 1.0), 0.9),
        (None, 0.4, 0.5, (0.8, 0.0), 1.0),
        (None, 0.0, 0.0, (0.0, 0.0), 1.0),
        ("rand-n3-m5", 0.0, 1.0, (0.0, 1.0), 1.0),
    ],
)
def test_a_prepared_batch_equals_that_of_the_parts(policy, jitter, erase, alphas, prob):
    device = torch.device(DEVICE)
    parsed = None if policy is None else parse_rand_augment(policy)
    augment = BatchAugment(PixelAugment(parsed, jitter, seed=3), erase, 3).to(device)
    normalize = Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).to(device)
    mix = Mix(10, mixup=alphas[0], cutmix=alphas[1], prob=prob, switch_prob=0.5)
    static = StaticAugment(augment, normalize, mix, 10, 24, device)
    labels = torch.arange(10, device=device)
    for step in range(4):
        images = images_of(10, 24, step).to(device).permute(0, 3, 1, 2)
        samples = Samples(step, np.arange(10) * 7 + step)
        torch.manual_seed(step)
        static.load(samples)
        got, targets = static(images, labels)
        torch.manual_seed(step)
        wanted = augment.erase(normalize(augment.change(images, samples)), samples)
        wanted, hot = mix(wanted, labels)
        if hot.ndim < targets.ndim:
            hot = torch.nn.functional.one_hot(hot, 10).float()
        off = (got - wanted).abs()
        # One value in a thousand may be off by one of 255 where pixels were interpolated.
        assert (off > 1e-5).float().mean() < (5e-3 if policy else 1e-9)
        assert off.max() < 0.05
        torch.testing.assert_close(targets, hot, rtol=0, atol=0)


def test_the_noise_is_standard_normal_to_its_ends():
    """Its quantiles are a polynomial's: against torch's inverse of the error function."""
    place = torch.arange(4096)
    device = torch.device(DEVICE)
    augment = BatchAugment(PixelAugment(seed=1), 1.0, 1).to(device)
    normalize = Normalize((0.5,) * 3, (0.5,) * 3).to(device)
    mix = Mix(2, mixup=0, cutmix=0, prob=0, switch_prob=0)
    static = StaticAugment(augment, normalize, mix, 1, 64, device)
    arrays = static.buffer.begin()
    arrays["boxes"][0], arrays["seeds"][0] = (0, 0, 64, 64), 12345
    arrays["mode"][0] = 0
    static.buffer.send()
    blank = torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=device)
    got, _ = static(blank.contiguous(memory_format=torch.channels_last), place[:1].to(device))
    wanted = noise(torch.full((4096,), 12345), place).view(64, 64, 3).permute(2, 0, 1)
    torch.testing.assert_close(got[0].cpu(), wanted, rtol=2e-5, atol=2e-6)
