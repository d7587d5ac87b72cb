import dataclasses
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semabench.data.procedural import shapes_folder
from semabench.data.procedural.shapes import CLASSES, LAYOUTS, TEXTURES, draw_scene, render_scene
from semabench.data.procedural.shapes_folder import generate_shapes
from semabench.errors import SemabenchError

quick = settings(deadline=None, max_examples=25)
SMALL = {"train": 20, "val": 9, "size": 64}
seeds = st.integers(0, 2**32)
labels = st.integers(0, len(CLASSES) - 1)


def _scene(label, *seed):
    return draw_scene(label, np.random.default_rng(seed))


def _tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.jpg")}


def _large(scene):
    return [shape for shape in scene.shapes if shape.frequency]


# The two cues


@quick
@given(labels, seeds)
def test_texture_is_the_direction_of_the_stripes(label, seed):
    for shape in _large(_scene(label, seed)):
        tilt = np.rad2deg(np.arccos(abs(np.cos(shape.angle))))  # of a mirrored image, the same
        ideal = {"vertical": 0, "diagonal": 45, "horizontal": 90}[TEXTURES[label // 3]]
        assert abs(tilt - ideal) <= 12.1


@quick
@given(labels, seeds)
def test_layout_is_where_the_shapes_stand(label, seed):
    shapes = _large(_scene(label, seed))
    assert len(shapes) == 3
    width, height = (np.ptp([getattr(s, axis) for s in shapes]) for axis in ("x", "y"))
    elongated = {"row": width > 2 * height, "column": height > 2 * width}
    assert elongated.get(LAYOUTS[label % 3], 0.5 < width / height < 2)


@quick
@given(seeds, st.integers(0, 2))
def test_scenes_of_other_textures_differ_by_the_angle_alone(seed, layout):
    """So everything else is independent of texture: layout alone is right in 1/3 at best."""
    first, *others = [_scene(3 * texture + layout, seed) for texture in range(3)]
    for other in others:
        assert np.array_equal(first.base, other.base)
        for one, two in zip(first.shapes, other.shapes, strict=True):
            for field in dataclasses.fields(one):
                if field.name != "angle" or not one.frequency:
                    assert np.array_equal(getattr(one, field.name), getattr(two, field.name))


@quick
@given(seeds, st.integers(0, 2))
def test_scenes_of_other_layouts_have_the_same_shapes(seed, texture):
    """Same outlines, sizes, colours and waves: texture alone is right in 1/3 at best."""
    scenes = [_large(_scene(3 * texture + layout, seed)) for layout in range(3)]
    for shapes in zip(*scenes, strict=True):
        for name in ("outline", "radius", "rotation", "frequency", "angle", "phase"):
            assert len({getattr(shape, name) for shape in shapes}) == 1


@quick
@given(seeds, st.integers(0, 2))
def test_at_few_pixels_no_texture_exists(seed, layout):
    images = [render_scene(_scene(3 * texture + layout, seed), 8) for texture in range(3)]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


def _histograms(split, count):
    """Return joint (4×4×4) and single (3×16) colour histograms, and the labels."""
    features, answers = [], []
    for index in range(count):
        label = index % len(CLASSES)
        pixels = render_scene(_scene(label, split, index), 48).reshape(-1, 3)
        joint = np.histogramdd(pixels, bins=4, range=[(0, 256)] * 3)[0].ravel()
        single = [np.histogram(channel, bins=16, range=(0, 256))[0] for channel in pixels.T]
        features.append(np.concatenate([joint, *single, pixels.mean(0), [1]]) / len(pixels))
        answers.append(label)
    return np.array(features), np.array(answers)


def test_bag_of_pixels_stays_at_chance():
    features, answers = _histograms(0, 1350)
    targets = np.eye(len(CLASSES))[answers]
    ridge = 1e-3 * np.eye(features.shape[1])
    weights = np.linalg.solve(features.T @ features + ridge, features.T @ targets)
    features, answers = _histograms(1, 450)
    accuracy = ((features @ weights).argmax(1) == answers).mean()
    chance = 1 / len(CLASSES)
    assert abs(accuracy - chance) < 3 * np.sqrt(chance * (1 - chance) / 900)


# Rendering


@quick
@given(labels, seeds)
def test_fewer_pixels_are_the_mean_of_more(label, seed):
    scene = _scene(label, seed)
    coarse = render_scene(scene, 160).astype(float)
    fine = render_scene(scene, 640).astype(float)
    reduced = fine.reshape(160, 4, 160, 4, 3).mean(axis=(1, 3))
    assert np.abs(coarse - reduced).mean() < 0.6
    assert np.quantile(np.abs(coarse - reduced), 0.99) < 8  # edges and clipped colours only


@quick
@given(labels, seeds)
def test_shapes_stay_within_the_image(label, seed):
    for shape in _large(_scene(label, seed)):
        assert 0 < shape.x - shape.radius < shape.x + shape.radius < 1
        assert 0 < shape.y - shape.radius < shape.y + shape.radius < 1


# The folder tree


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return generate_shapes(tmp_path_factory.mktemp("shapes") / "data", **SMALL, workers=1)


def test_tree_is_an_ordinary_one(dataset):
    for split, total in (("train", 20), ("val", 9)):
        folders = sorted(path.name for path in (dataset / split).iterdir())
        assert folders == sorted(CLASSES)
        counts = [len(list((dataset / split / name).iterdir())) for name in folders]
        assert sum(counts) == total
        assert max(counts) - min(counts) <= 1
    images = [Image.open(path) for path in dataset.rglob("*.jpg")]
    assert {(p.size, p.mode) for p in images} == {((64, 64), "RGB")}
    assert not [path for path in dataset.parent.iterdir() if path != dataset]


def test_any_number_of_workers_writes_the_same_bytes(dataset, tmp_path):
    assert _tree(generate_shapes(tmp_path / "data", **SMALL, workers=3)) == _tree(dataset)


def test_a_larger_dataset_begins_with_the_smaller(dataset, tmp_path):
    larger = _tree(generate_shapes(tmp_path / "data", **(SMALL | {"train": 40}), workers=2))
    assert _tree(dataset).items() < larger.items()


def test_images_differ_between_splits_numbers_and_seeds(dataset, tmp_path):
    other = _tree(generate_shapes(tmp_path / "data", **SMALL, seed=1, workers=2))
    contents = [*_tree(dataset).values(), *other.values()]
    assert len(set(contents)) == 2 * 29


def test_a_second_call_does_nothing(dataset, capfd):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    generate_shapes(dataset, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before
    assert "nothing to do" in capfd.readouterr().err


def test_other_settings_or_other_content_are_not_overwritten(dataset, tmp_path):
    with pytest.raises(SemabenchError, match="made with seed = 0, not 1"):
        generate_shapes(dataset, **SMALL, seed=1)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SemabenchError, match="not a shapes dataset"):
        generate_shapes(tmp_path, **SMALL)


def _full_disk(path, data):
    if path.name == "000001.jpg":
        raise OSError(28, os.strerror(28))
    path.touch()


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes_folder.Path, "write_bytes", _full_disk)
    with pytest.raises(SemabenchError, match="No space left"):
        generate_shapes(tmp_path / "data", **SMALL, workers=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 8}, "at least 9 images"),
        ({"size": 40}, "at least 48"),
        ({"seed": -1}, "seed"),
        ({"workers": 0}, "workers"),
    ],
)
def test_impossible_settings(tmp_path, change, message):
    with pytest.raises(SemabenchError, match=message):
        generate_shapes(tmp_path / "data", **(SMALL | change))
    assert not list(tmp_path.iterdir())
