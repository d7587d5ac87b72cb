"""One image at a time: decode it as torchvision does, shrink, transform and encode it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

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
    """An image as the file stores it: JPEG bytes or raw RGB rows (height, width, 3)."""

    mode: int
    width: int
    height: int
    data: bytes
    mended: bool = False  # a JPEG encoded anew, as FFCV's decoder would have refused or misread it


class UnreadableImageError(Exception):
    """The image is damaged, cut short, or too large; the message says which."""


def allow_large_images() -> None:
    """Lift Pillow's decompression-bomb limit in this process; ``decode`` has its own."""
    Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes) -> Image.Image:
    """Decode a whole image to RGB, exactly as torchvision's ``pil_loader``.

    Grey is repeated, CMYK converted, alpha and palette flattened, and the EXIF orientation is *not*
    applied, as it is not in timm's and torchvision's published numbers. But 16-bit grey, which they
    clip to white, is scaled.

    Raises:
        UnreadableImageError: no image, a damaged or truncated one, over ``MAX_PIXELS``, or of
            numbers without a known range.
    """
    image = open_image(data)
    if image.mode.startswith("I;16"):  # Pillow would clip to white: scaled, 65,535 is 255
        wide = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = {"I": "32-bit whole", "F": "floating-point"}[image.mode]
        raise UnreadableImageError(
            f"its {kind} numbers have no range that is known: convert it to 8 or 16 bits"
        )
    return image.convert("RGB")


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
        raise UnreadableImageError("not an image, or its header is damaged") from error
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

    Raises:
        SemabenchError: the image is larger, and OpenCV is not installed.
    """
    longest = max(image.size)
    if max_resolution is None or longest <= max_resolution:
        return image
    try:
        import cv2  # deferred: only here, and Pillow alone serves all others
    except ImportError as error:
        raise SemabenchError(
            f"an image of {image.width}×{image.height} is beyond max_resolution {max_resolution}, "
            "and shrinking needs OpenCV: pip install opencv-python (or 'semabench[ffcv]')."
        ) from error
    width, height = (max(1, side * max_resolution // longest) for side in image.size)
    pixels = cv2.resize(np.asarray(image), (width, height), interpolation=cv2.INTER_AREA)
    return Image.fromarray(pixels)


@dataclass(frozen=True)
class EvalTransform:
    """timm's evaluation transform, byte for byte: the short side is resized to
    floor(R / crop_pct) and the centre R × R is cut out.
    """

    resolution: int
    crop_pct: float
    interpolation: str

    @cached_property
    def timms(self) -> Any:
        """timm's own without its normalisation: PIL image -> uint8 (3, R, R)."""
        from timm.data.transforms_factory import create_transform  # deferred: it takes seconds

        return create_transform(
            input_size=self.resolution,
            is_training=False,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            normalize=False,
        )

    def __call__(self, data: bytes, *draws: int) -> NDArray[np.uint8]:
        """Return the pixels (R, R, 3) of an encoded image; ``draws`` have no effect in evaluation.

        Raises:
            UnreadableImageError: it cannot be decoded whole, or is so long and thin that
                timm's resize would not fit in memory.
        """
        image = decode(data)
        # timm brings the short side to R / crop_pct before it crops.
        long, short = max(image.size), min(image.size)
        scaled = math.floor(self.resolution / self.crop_pct)
        if scaled * scaled * long / short > MAX_PIXELS:
            raise UnreadableImageError(
                f"{image.width}×{image.height} is too long and thin to be resized"
            )
        return np.ascontiguousarray(self.timms(image).permute(1, 2, 0).numpy())


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
            frame = data[at + 4 : at + 2 + length]  # precision, …, components, their sampling
            if marker not in (0xC0, 0xC1) or len(frame) != 15 or (frame[0], frame[5]) != (8, 3):
                return False
            plain = frame[7] in (0x11, 0x21, 0x12, 0x22) and frame[10] == frame[13] == 0x11
            return plain and b"\xff\xd9" in data[at:]
        at += 2 + length
    return False
