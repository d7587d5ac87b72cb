"""Decoding as torchvision does, shrinking, and which JPEGs may be stored as they are."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets.folder import pil_loader

from helpers.image_makers import encoded, jpeg, odd_images, pixels
from semabench.data import image as images
from semabench.data.image import UnreadableImageError, decode, is_plain_jpeg, shrink

ODD = odd_images()


@pytest.mark.parametrize("name", sorted(set(ODD) - {"deep.png"}))  # which that clips to white
def test_decodes_as_torchvision(name, tmp_path):
    (tmp_path / name).write_bytes(ODD[name])
    ours = decode(ODD[name])
    assert ours.mode == "RGB"
    np.testing.assert_array_equal(ours, pil_loader(tmp_path / name))


def test_exif_orientation_is_not_applied():
    assert decode(ODD["exif.JPG"]).size == (61, 47)


@pytest.mark.parametrize("name", ODD)
def test_every_truncated_image_is_noticed(name):
    data = ODD[name]
    with pytest.raises(UnreadableImageError):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<html>not found</html>", bytes(3000)])
def test_what_is_no_image(data):
    with pytest.raises(UnreadableImageError):
        decode(data)


def test_larger_than_pillows_limit_but_within_ours(monkeypatch):
    # Pillow raises at twice MAX_IMAGE_PIXELS.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="exceeds limit"):
        decode(jpeg(40, 30))
    images.allow_large_images()
    assert decode(jpeg(40, 30)).size == (40, 30)
    monkeypatch.setattr(images, "MAX_PIXELS", 1199)
    with pytest.raises(UnreadableImageError, match="40×30 pixels, more than 1,199"):
        decode(jpeg(40, 30))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 500))
def test_shrink_caps_the_longest_side_exactly(width, height, cap):
    small = shrink(Image.new("RGB", (width, height)), cap)
    if max(width, height) <= cap:
        assert small.size == (width, height)
    else:
        assert max(small.size) == cap
        assert min(small.size) == max(1, min(width, height) * cap // max(width, height))


def test_shrink_averages_areas():
    image = Image.fromarray(pixels(80, 60))
    expected = cv2.resize(np.asarray(image), (40, 30), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(shrink(image, 40), expected)
    assert shrink(image, None) is image


PLAIN = {"exif.JPG", "full_chroma.jpeg", "half_chroma.jpg", "restart.jpg", "wide.jpg"}


@pytest.mark.parametrize("name", ODD)
def test_which_jpegs_are_plain(name):
    # Adobe's RGB JPEG is plain for turbojpeg too: it converts to RGB whatever is inside.
    assert is_plain_jpeg(ODD[name]) == (name in PLAIN | {"adobe_rgb.jpg"})


@pytest.mark.parametrize("name", sorted(PLAIN | {"adobe_rgb.jpg"}))
def test_ffcv_reads_plain_jpegs_as_pillow_does(name):
    libffcv = pytest.importorskip("ffcv.libffcv")
    expected = np.asarray(decode(ODD[name]))
    height, width, _ = expected.shape
    out = np.zeros_like(expected)
    source = np.frombuffer(ODD[name], dtype=np.uint8)
    code = libffcv.imdecode(source, out, height, width, height, width, 0, 0, 1, 1, False, False)
    assert code == 0
    # FFCV asks turbojpeg for its fast DCT: a few grey levels of rounding, nothing more.
    assert np.abs(out.astype(int) - expected).max() <= 6


def test_plain_jpeg_without_its_end_is_not_plain():
    data = jpeg()
    assert is_plain_jpeg(data)
    assert not is_plain_jpeg(data.replace(b"\xff\xd9", b""))
    assert not is_plain_jpeg(data[:20])
    assert not is_plain_jpeg(b"")


def test_jpeg_encoding_is_that_of_opencv():
    image = Image.fromarray(pixels(120, 90))
    stored = images.encode_jpeg(image, 90)
    assert (stored.mode, stored.width, stored.height) == (images.JPG, 120, 90)
    bgr = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
    theirs = cv2.imencode(".jpg", bgr, [int(cv2.IMWRITE_JPEG_QUALITY), 90])[1].tobytes()
    ours, reference = (Image.open(io.BytesIO(d)) for d in (stored.data, theirs))
    assert ours.quantization == reference.quantization
    assert ours.layer == reference.layer
    np.testing.assert_allclose(np.asarray(ours, int), np.asarray(reference, int), atol=4)


def test_raw_encoding_is_the_pixels():
    array = pixels(7, 5)
    assert images.encode_raw(array)[:4] == (images.RAW, 7, 5, array.tobytes())


def test_missing_opencv_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(images.SemabenchError, match="pip install opencv-python"):
        shrink(Image.new("RGB", (20, 20)), 10)


def test_encoded_helper_is_lossless_for_png():
    image = Image.fromarray(pixels(9, 9))
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), image)


def test_sixteen_bits_are_scaled_not_clipped():
    grey = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert (np.asarray(decode(encoded(wide, "PNG")))[..., 0] == grey).all()


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "floating-point"), (np.int32, "whole")])
def test_numbers_without_a_known_range_are_refused(dtype, kind):
    image = Image.fromarray(np.ones((5, 5), dtype))
    with pytest.raises(UnreadableImageError, match=f"{kind}.*convert it"):
        decode(encoded(image, "TIFF"))
