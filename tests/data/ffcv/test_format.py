"""Our writer and reader of FFCV's format, against FFCV itself."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.image_makers import jpeg, pixels
from semabench.data.ffcv import format as beton
from semabench.data.ffcv.format import BetonWriter, read_beton
from semabench.data.image import JPG, Encoded, decode, encode_raw
from semabench.errors import SemabenchError


def write(path, samples, capacity=None):
    with open(path, "wb") as file:
        writer = BetonWriter(file, len(samples) if capacity is None else capacity)
        for image, label in samples:
            writer.add(image, label)
        assert writer.finish() == path.stat().st_size
    return path


def raw(width, height, seed=0):
    return encode_raw(pixels(width, height, seed))


def ffcv_images(path, os_cache):
    """Read all images and labels through FFCV's own loader, in order."""
    ffcv = pytest.importorskip("ffcv")
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import OrderOption
    from ffcv.transforms import ToTensor

    loader = ffcv.Loader(
        str(path),
        batch_size=4,
        num_workers=1,
        os_cache=os_cache,
        order=OrderOption.SEQUENTIAL,
        drop_last=False,
        pipelines={
            "image": [SimpleRGBImageDecoder(), ToTensor()],
            "label": [IntDecoder(), ToTensor()],
        },
    )
    batches = [(images.clone(), labels.clone()) for images, labels in loader]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)[:, 0]


def test_types_are_ffcvs():
    types = pytest.importorskip("ffcv.types")
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.rgb_image import IMAGE_MODES

    from semabench.data.image import RAW

    assert types.HeaderType == beton.HEADER
    assert types.FieldDescType == beton.FIELD
    assert beton.ALLOCATION == types.ALLOC_TABLE_TYPE
    assert types.get_metadata_type([RGBImageField(), IntField()]) == beton.METADATA
    assert types.CURRENT_VERSION == beton.VERSION
    assert [types.TYPE_ID_HANDLER[t] for _, t in beton.FIELDS] == [RGBImageField, IntField]
    assert (IMAGE_MODES["jpg"], IMAGE_MODES["raw"]) == (JPG, RAW)


@pytest.mark.parametrize("os_cache", [True, False])
def test_ffcv_reads_raw_images_from_many_pages(tmp_path, monkeypatch, os_cache):
    monkeypatch.setattr(beton, "PAGE_SIZE", 4096)
    samples = [(raw(20, 30, seed), 100 - seed) for seed in range(10)]
    path = write(tmp_path / "x.beton", samples, capacity=15)
    images, labels = ffcv_images(path, os_cache)
    np.testing.assert_array_equal(images, [pixels(20, 30, seed) for seed in range(10)])
    assert labels.tolist() == [label for _, label in samples]


@pytest.mark.parametrize("os_cache", [True, False])
def test_ffcv_reads_jpegs_and_pages_that_grew(tmp_path, monkeypatch, os_cache):
    monkeypatch.setattr(beton, "PAGE_SIZE", 1024)
    data = [jpeg(64, 48, seed) for seed in range(8)]
    samples = [(Encoded(JPG, 64, 48, jpg), seed) for seed, jpg in enumerate(data)]
    samples.insert(3, (raw(64, 48, 99), 3))  # 9,216 bytes: a page of 16 KiB
    path = write(tmp_path / "x.beton", samples)
    assert read_beton(path).page_size == 16384
    images, _ = ffcv_images(path, os_cache)
    np.testing.assert_array_equal(images[3], pixels(64, 48, 99))
    expected = [np.asarray(decode(jpg), dtype=int) for jpg in data]
    assert np.abs(np.delete(images, 3, axis=0) - expected).max() <= 6


def test_reader_takes_what_ffcvs_writer_wrote(tmp_path):
    ffcv = pytest.importorskip("ffcv")
    from ffcv.fields import IntField, RGBImageField

    samples = [(pixels(30 + i, 20, i), i) for i in range(6)]
    writer = ffcv.DatasetWriter(
        str(tmp_path / "x.beton"), {"image": RGBImageField(), "label": IntField()}, num_workers=2
    )
    writer.from_indexed_dataset(samples, chunksize=2)
    ours = read_beton(tmp_path / "x.beton")
    assert ours.labels.tolist() == list(range(6))
    assert [ours.image(i) for i in range(6)] == [encode_raw(array) for array, _ in samples]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1), st.integers(0, 3))
def test_round_trip_and_no_sample_crosses_a_page(tmp_path_factory, sizes, spare):
    path = tmp_path_factory.mktemp("b") / "x.beton"
    samples = [(raw(*size, seed), -seed) for seed, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beton, "PAGE_SIZE", 512)
        write(path, samples, capacity=len(samples) + spare)
    back = read_beton(path)
    assert [(back.image(i), back.labels[i]) for i in range(len(back))] == samples
    page = back.page_size
    assert ((back.offsets // page) == (back.offsets + back.sizes - 1) // page).all()
    assert page < 2 * max(512, back.sizes.max())


def test_sides_and_sizes_that_the_format_cannot_hold(monkeypatch):
    writer = BetonWriter(io.BytesIO(), 2)
    for width, height in ((65536, 1), (1, 65536), (0, 5)):
        with pytest.raises(ValueError, match="a side may have"):
            writer.add(Encoded(JPG, width, height, b"x"), 0)
    writer.add(Encoded(JPG, 65535, 65535, b"x"), 0)
    monkeypatch.setattr(beton, "MAX_PAGE_SIZE", 1 << 24)
    with pytest.raises(ValueError, match="one image may take"):
        writer.add(Encoded(JPG, 5, 5, bytes((1 << 24) + 1)), 0)


def damaged(path, where, value):
    data = bytearray(path.read_bytes())
    data[where : where + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: damaged(p, 0, bytes(24)), "header is damaged"),
        (lambda p: damaged(p, 4, b"\x03\0\0\0"), "not a power of two"),
        (lambda p: damaged(p, 8, b"\x09"), "no allocation table for 9 samples"),
        (lambda p: damaged(p, 24, b"\x05"), "other fields"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "ends inside its fields"),
        (lambda p: p.write_bytes(b""), "ends inside its header"),
        (lambda p: damaged(p, beton._METADATA_START, b"\x07"), "sample 0 is neither JPEG nor raw"),
        (lambda p: damaged(p, beton._METADATA_START + 1, b"\x15"), "sample 0 has another size"),
        (lambda p: damaged(p, beton._METADATA_START + 5, b"\xff\xff"), "disagree"),
        (lambda p: damaged(p, p.stat().st_size - 24, b"\x00"), "every sample once"),
        (lambda p: p.unlink(), "No such file"),
    ],
)
def test_damaged_structure_is_told(tmp_path, damage, message):
    path = write(tmp_path / "x.beton", [(raw(20, 30, seed), seed) for seed in range(3)])
    damage(path)
    with pytest.raises(SemabenchError, match=message) as caught:
        read_beton(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("pointer", "message"), [(0, "points outside"), (1 << 40, "points outside"), (1, "overlaps")]
)
def test_pointers_that_lead_astray(tmp_path, pointer, message):
    path = write(tmp_path / "x.beton", [(raw(20, 30, seed), seed) for seed in range(3)])
    if pointer == 1:
        pointer = int(read_beton(path).offsets[0]) + 5
    value = pointer.to_bytes(8, "little")
    damaged(path, beton._METADATA_START + beton.METADATA.itemsize + 5, value)  # sample 1
    damaged(path, path.stat().st_size - 48 + 8, value)
    with pytest.raises(SemabenchError, match=message):
        read_beton(path)
