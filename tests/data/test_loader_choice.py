"""Which loader is made of what is there, and what is refused, in one line."""

import shutil

import pytest

from helpers.loader_makers import KINDS, evaluation, needs_ffcv, train
from semabench.data.ffcv import loader as ffcv_loader
from semabench.errors import SemabenchError


def test_without_ffcv_what_is_packed_is_read_all_the_same(dataset, monkeypatch):
    monkeypatch.setattr(ffcv_loader, "missing_ffcv", lambda: "No module named 'ffcv'")
    assert type(train(dataset, "ffcv")).__name__ == "FFCVTrainLoader"
    for kind in ("ffcv", "simplejpeg"):
        with pytest.raises(SemabenchError, match=r"area is FFCV's.*set bicubic or bilinear"):
            train(dataset, kind, interpolation="area")


def test_without_ffcv_what_is_not_packed_is_taken_from_the_folder(dataset, monkeypatch, tmp_path):
    monkeypatch.setattr(ffcv_loader, "missing_ffcv", lambda: "No module named 'ffcv'")
    with pytest.warns(UserWarning, match="not packed and FFCV cannot be used.*folder loader"):
        loader = train(dataset._replace(packed=tmp_path), "ffcv")
    assert type(loader).__name__ == "FolderTrainLoader"
    with pytest.raises(SemabenchError, match="make it with `semabench data pack"):
        train(dataset._replace(packed=tmp_path, source=None), "ffcv")


@needs_ffcv
def test_missing_files_are_told_with_the_command_that_makes_them(dataset, tmp_path):
    with pytest.raises(SemabenchError) as error:
        evaluation(dataset, "ffcv", resolution=64)
    assert f"`semabench data render {dataset.source} {dataset.packed} --resolution 64`" in str(
        error.value
    )
    with pytest.raises(SemabenchError, match=f"`semabench data pack SRC {tmp_path}`"):
        train(dataset._replace(packed=tmp_path, source=None), "ffcv")


@needs_ffcv
def test_pixels_rendered_otherwise_are_refused(dataset):
    with pytest.raises(SemabenchError, match=r"rendered with crop_pct 0.875, not 1.0.*--overwrite"):
        evaluation(dataset, "ffcv", crop_pct=1.0)


@needs_ffcv
def test_a_file_that_is_not_rendered_is_no_evaluation_set(dataset, tmp_path):
    for suffix in ("", ".json"):
        shutil.copy(dataset.packed / f"train.beton{suffix}", tmp_path / f"val-48.beton{suffix}")
    with pytest.raises(SemabenchError, match="does not hold raw images of 48×48"):
        evaluation(dataset._replace(packed=tmp_path), "ffcv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 46}, "45 images, fewer than one batch of 46"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_workers": 0}, "workers must be at least 1"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio"),
        ({"hflip": 1.5}, "hflip"),
        ({"seed": -1}, "seed must be between"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"rank": 2, "world_size": 2}, "rank 2"),
        ({"interpolation": "bicubik"}, "Did you mean 'bicubic'"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments_are_refused_in_one_line(dataset, kind, options, message):
    with pytest.raises(SemabenchError, match=message) as error:
        train(dataset, kind, **options)
    assert "\n" not in str(error.value)


def test_unknown_kinds_and_small_resolutions_are_refused(dataset):
    with pytest.raises(SemabenchError, match=r"data.loader=fcv is not known\. Did you mean 'ffcv'"):
        train(dataset, "fcv")
    with pytest.raises(SemabenchError, match="resolution must be at least 32, got 31"):
        evaluation(dataset, "folder", resolution=31)
    with pytest.raises(SemabenchError, match="needs the directory of images"):
        train(dataset._replace(source=None), "folder")
