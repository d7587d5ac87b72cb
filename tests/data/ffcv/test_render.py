"""Rendered pixels are timm's, byte for byte."""

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.datasets.folder import pil_loader

from helpers.image_makers import odd_images, write_odd_tree, write_tree
from semabench.data import image
from semabench.data.ffcv import publish
from semabench.data.ffcv.check import check, require_intact
from semabench.data.ffcv.format import read_beton
from semabench.data.ffcv.pack import INTERPOLATIONS, render
from semabench.data.sources import find_images
from semabench.errors import SemabenchError


def stored(beton, index, resolution):
    data = beton.image(index).data
    return np.frombuffer(data, dtype=np.uint8).reshape(resolution, resolution, 3)


def timm_pixels(path, resolution, crop_pct, interpolation):
    """timm's own normalised output, brought back to the bytes it came from."""
    transform = create_transform(
        resolution, is_training=False, crop_pct=crop_pct, interpolation=interpolation
    )
    normalised = transform(pil_loader(path)).permute(1, 2, 0).double().numpy()
    scaled = (normalised * IMAGENET_DEFAULT_STD + IMAGENET_DEFAULT_MEAN) * 255
    assert np.abs(scaled - scaled.round()).max() < 1e-3
    return scaled.round().astype(np.uint8)


@pytest.mark.parametrize(
    ("resolution", "crop_pct", "interpolation"),
    [(32, 0.875, "bicubic"), (57, 0.95, "bilinear"), (100, 1.0, "lanczos")],
)
def test_odd_images(tmp_path, resolution, crop_pct, interpolation):
    write_odd_tree(tmp_path, "val")
    (done,) = render(
        tmp_path, tmp_path / "out", [resolution], crop_pct=crop_pct, interpolation=interpolation
    )
    beton = read_beton(done.path)
    assert len(beton) == len(odd_images())
    for index, name in enumerate(sorted(odd_images())):
        if name == "deep.png":  # 16 bits, which timm clips to white
            assert stored(beton, index, resolution).std() > 20
            continue
        expected = timm_pixels(tmp_path / "val" / "odd" / name, resolution, crop_pct, interpolation)
        np.testing.assert_array_equal(stored(beton, index, resolution), expected, err_msg=name)


def rendered_as_timm_does(source, out_dir, step):
    done = render(source, out_dir, [64, 224])
    images = find_images(source, "val")
    for published, resolution in zip(done, (64, 224), strict=True):
        assert published.path.name == f"val-{resolution}.beton"
        assert published.sidecar.samples == len(images)
        assert require_intact(published.path).settings["resolution"] == resolution
        beton = read_beton(published.path)
        for index in range(0, len(images), step):
            expected = timm_pixels(images.location(index), resolution, 0.875, "bicubic")
            np.testing.assert_array_equal(stored(beton, index, resolution), expected)
            assert beton.labels[index] == images.labels[index]
    assert check(done[1].path).samples == len(images)


def test_photographs(photographs_dir, tmp_path):
    rendered_as_timm_does(photographs_dir, tmp_path, step=1)


@pytest.mark.many_photographs
def test_many_photographs(many_photographs_dir, tmp_path):
    rendered_as_timm_does(many_photographs_dir, tmp_path, step=60)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), "val", {"a": 5, "b": 4})


def test_same_bytes_for_any_number_of_workers(tree, tmp_path):
    one, three = (render(tree, tmp_path / str(n), [48], workers=n)[0] for n in (1, 3))
    assert one.path.read_bytes() == three.path.read_bytes()
    assert one.sidecar == three.sidecar


def test_only_what_is_missing_is_rendered(tree, tmp_path, capsys):
    render(tree, tmp_path, [32])
    both = render(tree, tmp_path, [32, 40, 32])
    assert [published.fresh for published in both] == [False, True]
    assert "val-32.beton is already there" in capsys.readouterr().err
    with pytest.raises(SemabenchError, match=r"crop_pct = 0\.875, not 0\.9"):
        render(tree, tmp_path, [32], crop_pct=0.9)
    assert render(tree, tmp_path, [32], crop_pct=0.9, overwrite=True)[0].fresh


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolutions": [31]}, "resolution must be between 32"),
        ({"resolutions": []}, "no resolution given"),
        ({"crop_pct": 0.0}, "crop_pct must be"),
        ({"crop_pct": 1.1}, "crop_pct must be"),
        ({"interpolation": "bicubi"}, "Did you mean 'bicubic'"),
        ({"interpolation": "random"}, "unknown interpolation"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"on_error": "go"}, "unknown on_error"),
        ({"split": "train"}, "expected train/<class>"),
    ],
)
def test_bad_options_are_told_before_anything_is_written(tree, tmp_path, options, message):
    options = {"resolutions": [32]} | options
    with pytest.raises(SemabenchError, match=message):
        render(tree, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_interpolation_is_timms(tree, tmp_path, interpolation):
    (done,) = render(tree, tmp_path, [32], interpolation=interpolation, workers=1)
    path = find_images(tree, "val").location(3)
    expected = timm_pixels(path, 32, 0.875, interpolation)
    np.testing.assert_array_equal(stored(read_beton(done.path), 3, 32), expected)


def test_too_little_space_is_told_before_anything_is_written(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "free_bytes", lambda directory: 9 * 3 * 64 * 64)
    with pytest.raises(SemabenchError, match=r"rendering 9 images at 32, 64 px needs 0\.00 GiB"):
        render(tree, tmp_path / "out", [32, 64])
    assert not (tmp_path / "out").exists()


def test_too_long_and_thin_is_told_with_its_path(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "MAX_PIXELS", 36 * 36 * 100)
    (tmp_path / "val" / "a").mkdir(parents=True)
    Image.new("RGB", (99, 1)).save(tmp_path / "val" / "a" / "fits.png")
    Image.new("RGB", (101, 1)).save(tmp_path / "val" / "a" / "thin.png")
    with pytest.raises(SemabenchError, match=r"thin\.png: 101×1 is too long and thin"):
        render(tmp_path, tmp_path / "out", [32])
    (done,) = render(tmp_path, tmp_path / "out", [32], on_error="skip")
    assert done.sidecar.samples == 1
