"""A small dataset, as a folder tree, packed and rendered, shared by the loaders' tests."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from semabench.data.ffcv.pack import pack, render


class Dataset(NamedTuple):
    source: Path
    packed: Path
    resolution: int


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Dataset:
    """Smooth random images of many sizes: 45 for training, 21 for validation, 3 classes."""
    root = tmp_path_factory.mktemp("dataset")
    generator = np.random.default_rng(0)
    for split, count in (("train", 15), ("val", 7)):
        for name in ("ant", "bee", "cat"):
            directory = root / "source" / split / name
            directory.mkdir(parents=True)
            for number in range(count):
                coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                size = tuple(int(side) for side in generator.integers(40, 120, 2))
                image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
                image.save(directory / f"{number}.jpg", quality=90)
    pack(root / "source", root / "packed", workers=1)
    render(root / "source", root / "packed", [32, 48], workers=1)
    return Dataset(root / "source", root / "packed", 48)
