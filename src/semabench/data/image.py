"""One image at a time: decode it as torchvision does, shrink it, encode it for the file."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from semabench.errors import SemabenchError

#: Largest image that is decoded: 2**29 pixels, 2 GiB inside Pillow. Pillow's own limit (a
#: warning at 89 and an error at 179 megapixels) guards web servers; here the source is trusted.
MAX_PIXELS = 1 << 29
#: The file format stores width and height as unsigned 16-bit numbers.
MAX_SIDE = (1 << 16) - 1
#: libjpeg writes no more.
MAX_JPEG_SIDE = 65_500

JPG, RAW = 0, 1


class Encoded(NamedTuple):
    """A image as the file stores it: JPEG bytes or raw RGB rows (height, width, 3)."""

    mode: int
    width: int
    height: int
    data: bytes


class UnreadableImageError(Exception):
    """The image is damaged, cut short, or too large; the message says which."""


def allow_large_images() -> None:
    """Lift Pillow's decompression-bomb limit in this process; ``decode`` has its own."""
    Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes) -> Image.Image:
    """Decode a whole image to RGB, exactly as torchvision's ``pil_loader``.

    That is ``Image.open(…).convert("RGB")``: grey is repeated, CMYK converted, alpha and palette
    flattened, and the EXIF orientation is *not* applied, as it is not in timm's and torchvision's
    published numbers.

    Raises:
        UnreadableImageError: no image, a damaged or truncated one, or over ``MAX_PIXELS``.
    """
    return open_image(data).convert("RGB")


def open_image(data: bytes) -> Image.Image:
    """Decode a whole image in its own colour mode; raises as :func:`decode` does."""
    if not data:
        raise UnreadableImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImageError(
                f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}"
            )
        image.load()
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not a image, or its header is damaged") from error
    except MemoryError as error:
        raise UnreadableImageError("not enough memory to decode it") from error
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them
        raise UnreadableImageError(str(error) or type(error).__name__) from error
    return image


def shrink(image: Image.Image, max_resolution: int | None) -> Image.Image:
    """Cap the *longest* side at ``max_resolution`` by averaging areas (OpenCV's INTER_AREA).

    The other side keeps the aspect ratio, rounded down but at least one pixel.
    """
    longest = max(image.size)
    if max_resolution is None or longest <= max_resolution:
        return image
    width, height = (max(1, side * max_resolution // longest) for side in image.size)
    pixels = opencv().resize(np.asarray(image), (width, height), interpolation=opencv().INTER_AREA)
    return Image.fromarray(pixels)


def encode_raw(pixels: NDArray[np.uint8]) -> Encoded:
    """Store (height, width, 3) uint8 pixels as they are."""
    height, width, channels = pixels.shape
    assert channels == 3, pixels.shape
    return Encoded(RAW, width, height, pixels.tobytes())


def encode_jpeg(image: Image.Image, quality: int) -> Encoded:
    """Compress an RGB image as baseline JPEG with 4:2:0 chroma, OpenCV's and FFCV's choice.

    Raises:
        UnreadableImageError: a side exceeds what JPEG can hold.
    """
    if max(image.size) > MAX_JPEG_SIDE:
        raise UnreadableImageError(
            f"{image.width}×{image.height}: a JPEG side may have {MAX_JPEG_SIDE} px, "
            "set max_resolution"
        )
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return Encoded(JPG, image.width, image.height, buffer.getvalue())


def is_plain_jpeg(data: bytes) -> bool:
    """Say whether FFCV's decoder (turbojpeg) is sure to read these bytes as Pillow does.

    True for baseline Huffman JPEG of 8 bits and three components with ordinary chroma
    subsampling, complete to its end marker. Progressive ones would decode too, but two to three
    times slower in every epoch, so they are not called plain.
    """
    if data[:2] != b"\xff\xd8":
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            frame = data[at + 4 : at + 2 + length]
            return marker in (0xC0, 0xC1) and _plain_frame(frame) and b"\xff\xd9" in data[at:]
        at += 2 + length
    return False


def _plain_frame(frame: bytes) -> bool:
    """Check precision, component count and sampling factors in a start-of-frame segment."""
    if len(frame) != 15 or frame[0] != 8 or frame[5] != 3:
        return False
    luma, *chroma = frame[7], frame[10], frame[13]
    return luma in (0x11, 0x21, 0x12, 0x22) and chroma == [0x11, 0x11]


def opencv():  # type: ignore[no-untyped-def]  # the module's type cannot be named
    """Import OpenCV, which only packing with ``max_resolution`` needs.

    Raises:
        SemabenchError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise SemabenchError(
            "max_resolution needs OpenCV: pip install opencv-python (or 'semabench[ffcv]')."
        ) from error
    return cv2
