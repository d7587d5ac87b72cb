"""Parquet files as the Hub distributes them: found, named, read, packed like the same folder."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from helpers.image_makers import jpeg
from semabench.config.schema import DataConfig
from semabench.data.ffcv.format import read_sidecar
from semabench.data.ffcv.pack import render
from semabench.data.loader import open_dataset
from semabench.data.sources import find_images
from semabench.errors import SemabenchError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_shard(
    path, labels, names=None, column="image", label="label", first=0, group=2, told=None
):
    """A shard as ``datasets`` writes it: small row groups, class names in the schema."""
    rows = [{"bytes": jpeg(seed=first + k), "path": f"{k}.jpg"} for k in range(len(labels))]
    table = pa.table({column: pa.array(rows, IMAGE), label: pa.array(labels, pa.int64())})
    if names:
        kind = {"names": names, "_type": "ClassLabel"}
        told = {"info": {"features": {column: {"_type": "Image"}, label: kind}}}
        told = json.dumps(told)
    if told:
        table = table.replace_schema_metadata({"huggingface": told})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=group)


def test_shards_are_read_in_their_order(tmp_path):
    write_shard(tmp_path / "data/train-00000-of-00002.parquet", [1, 0, 2, 0, 1], ["a", "b", "c"])
    write_shard(tmp_path / "data/train-00001-of-00002.parquet", [2, 2], ["a", "b", "c"], first=5)
    write_shard(tmp_path / "data/validation-00000-of-00001.parquet", [0, 1, 2], ["a", "b", "c"])
    images = find_images(tmp_path, "train")
    assert images.classes == ["a", "b", "c"]
    assert images.labels.tolist() == [1, 0, 2, 0, 1, 2, 2]
    assert [images.read(k) for k in (6, 0, 3)] == [jpeg(seed=6), jpeg(seed=0), jpeg(seed=3)]
    assert images.location(5).endswith("train-00001-of-00002.parquet: row 0 of group 0")
    assert find_images(tmp_path, "val").counts == [1, 1, 1]


def test_a_part_held_out_is_no_part_of_the_rest(tmp_path):
    write_shard(tmp_path / "train.parquet", [0, 1] * 10, ["a", "b"])
    held, rest = (find_images(tmp_path, split, 0.2) for split in ("val", "train"))
    assert (held.counts, rest.counts) == ([2, 2], [8, 8])
    read = [{images.read(k) for k in range(len(images))} for images in (held, rest)]
    assert len(read[0] | read[1]) == 20
    assert (
        len({held.fingerprint, rest.fingerprint, find_images(tmp_path, "train").fingerprint}) == 3
    )


def test_they_render_to_the_pixels_of_the_same_images_in_folders(tmp_path):
    write_shard(tmp_path / "hub/validation-0.parquet", [0, 0, 1], ["a", "b"])
    for k, name in enumerate("aab"):
        folder = tmp_path / "tree/val" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{k}.jpg").write_bytes(jpeg(seed=k))
    (one,) = render(tmp_path / "hub", tmp_path / "one", [32], workers=2)
    (two,) = render(tmp_path / "tree", tmp_path / "two", [32], workers=1)
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.sidecar.paths == ["a/0.jpg", "a/1.jpg", "b/2.jpg"]
    assert read_sidecar(two.path).paths == ["a/0.jpg", "a/1.jpg", "b/2.jpg"]


def two_shards_of_other_classes(path):
    write_shard(path.with_name("val-0.parquet"), [0, 1], ["cat", "dog"])
    write_shard(path.with_name("val-1.parquet"), [0, 1], ["dog", "cat"])


def damaged_labels(path):
    write_shard(path, list(range(50)) * 4, group=200)
    data = bytearray(path.read_bytes())
    start = parquet.ParquetFile(path).metadata.row_group(0).column(2).data_page_offset
    data[start : start + 40] = b"x" * 40
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: write_shard(p, [0, -1], ["a", "b"]), "-1 marks a split whose labels are withh"),
        (lambda p: write_shard(p, [0], ["a"], label="caption"), "image, caption: one of structs"),
        (lambda p: p.write_bytes(b"PAR1 or not"), "download it again"),
        (lambda p: write_shard(p, []), "no rows"),
        (lambda p: write_shard(p, [0, 1, -1]), "labels from -1 to 1: -1 marks"),
        (lambda p: write_shard(p, [0, None], ["a"]), "has 1 rows without a label"),
        (two_shards_of_other_classes, "has other columns or classes than val-0.parquet"),
        (damaged_labels, "download it again"),
        (lambda p: write_shard(p, [0], told="[]"), "has a damaged schema"),
    ],
)
def test_files_of_another_kind_are_told_in_one_line(tmp_path, make, message):
    make(tmp_path / "val.parquet")
    with pytest.raises(SemabenchError, match=message) as told:
        find_images(tmp_path, "val")
    assert "\n" not in str(told.value)


def test_a_row_without_bytes_is_an_unreadable_image(tmp_path):
    rows = pa.array([{"bytes": None, "path": "a.jpg"}], IMAGE)
    table = pa.table({"image": rows, "label": pa.array([0], pa.int64())})
    parquet.write_table(table, tmp_path / "val.parquet")
    with pytest.raises(SemabenchError, match=r"row 0 of group 0: the row has no bytes"):
        render(tmp_path, tmp_path / "out", [32], workers=1)


def test_numbers_without_names_are_the_classes(tmp_path):
    write_shard(tmp_path / "val.parquet", [0, 2, 11])
    assert find_images(tmp_path, "val").classes == [str(k) for k in range(12)]
    assert np.bincount(find_images(tmp_path, "val").labels).tolist()[2] == 1


def test_a_file_that_has_gone_is_an_unreadable_image(tmp_path):
    write_shard(tmp_path / "val.parquet", [0, 1], ["a", "b"])
    images = find_images(tmp_path, "val")
    (tmp_path / "val.parquet").unlink()
    with pytest.raises(OSError, match="damaged"):
        images.read(0)


def test_rows_without_names_of_their_own_are_numbered(tmp_path):
    write_shard(tmp_path / "val-0.parquet", [0, 1], ["a", "b"])
    write_shard(tmp_path / "val-1.parquet", [1], ["a", "b"])  # 0.jpg once more
    assert find_images(tmp_path, "val").paths == ["a/00000000", "b/00000001", "b/00000002"]


def test_training_from_them_as_they_lie_is_refused(tmp_path):
    write_shard(tmp_path / "train.parquet", [0, 1], ["a", "b"])
    config = DataConfig("d", "packed", source=str(tmp_path), loader="folder")
    with pytest.raises(SemabenchError, match="semabench data pack"):
        open_dataset(config).describe()
