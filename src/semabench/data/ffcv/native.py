"""libjpeg-turbo, FFCV's or simplejpeg's, as the loader calls it: what it makes of a JPEG."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray


def native_library() -> ctypes.CDLL:
    """Load libffcv without importing ffcv.

    ``import ffcv`` takes seconds and sets torch's and numba's thread counts to one.

    Raises:
        ImportError: it is not installed.
    """
    package = find_spec("ffcv")
    if package is None or package.submodule_search_locations is None:
        raise ImportError("ffcv is not installed")
    library = PathFinder.find_spec("_libffcv", list(package.submodule_search_locations))
    if library is None or library.origin is None:
        raise ImportError("ffcv is installed without its native library")
    return ctypes.CDLL(library.origin)


ROUNDING = 3.0
"""Mean difference to Pillow's pixels, of 255: its fast DCT makes about 1; other colours, tens."""


@cache
def _decoder() -> Any:
    try:
        function = native_library()["imdecode"]
    except (ImportError, OSError, AttributeError):
        return None
    small, pointer = ctypes.c_uint32, ctypes.c_ssize_t
    function.argtypes = [
        pointer, ctypes.c_uint64, small, small, pointer, *[small] * 6, ctypes.c_uint8,
        ctypes.c_uint8,
    ]  # fmt: skip
    function.restype = ctypes.c_int32
    return function


def decode_jpeg(data: bytes, width: int, height: int) -> NDArray[np.uint8] | None:
    """Return the pixels (height, width, 3) that the loader will see; None where it will refuse.

    It refuses what libjpeg warns of, too: extraneous bytes, an early end, bad codes. Without FFCV
    simplejpeg tells, which sees the same.
    """
    pixels = np.empty((height, width, 3), np.uint8)
    decoder = _decoder()
    if decoder is None:
        from semabench.data.ffcv.turbo import decode

        return pixels if decode(data, pixels) else None
    encoded = np.frombuffer(data, np.uint8)
    failed = decoder(
        encoded.ctypes.data, len(data), height, width, pixels.ctypes.data,
        height, width, 0, 0, 1, 1, 0, 0,
    )  # fmt: skip
    return None if failed else pixels


def reads(data: bytes, pixels: NDArray[np.uint8]) -> bool:
    """Say whether the loader sees a JPEG as Pillow does, whose (height, width, 3) are given."""
    seen = decode_jpeg(data, pixels.shape[1], pixels.shape[0])
    if seen is None:
        return False
    return float(np.abs(seen.astype(np.int16) - pixels).mean()) <= ROUNDING
