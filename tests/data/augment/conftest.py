"""Images that are hard on augmentation: flat, two-valued, noisy, saturated, smooth."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """uint8 (20, 48, 48, 3)."""
    rng = np.random.default_rng(0)
    size = 48
    ramp = np.broadcast_to(np.linspace(0, 255, size), (size, size))
    made = [np.full((size, size, 3), value) for value in (0, 100, 255)]
    made += [np.full((size, size, 3), 7) + (rng.random((size, size, 1)) < 0.3)]
    made += [np.stack([ramp, ramp.T, ramp[::-1].T], -1), np.stack([ramp / 3 + 90] * 3, -1)]
    one_flat = rng.integers(0, 256, (size, size, 3))
    one_flat[..., 1] = 31
    made += [one_flat, 255 * (rng.random((size, size, 3)) < 0.01)]
    made += [rng.integers(0, 256, (size, size, 3)) for _ in range(2)]
    while len(made) < 20:
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        made.append(np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack([image.astype(np.uint8) for image in made]))
