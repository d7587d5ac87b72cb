"""The same crops without FFCV: simplejpeg, a wheel of libjpeg-turbo, in threads of Python's.

Pixels and draws are those of `decode`, to the bit. Decoding and resizing leave Python's lock, which
is held for some tens of microseconds a sample.
"""

from __future__ import annotations

import os
import threading

import numpy as np
import simplejpeg
from numba import njit
from numpy.typing import NDArray

from semabench.data.ffcv.kernels import (
    DAMAGED,
    DONE,
    UNREAD,
    draw_crop,
    draw_flip,
    keep_compiled,
    parts,
)
from semabench.data.ffcv.resample import resize
from semabench.data.image import JPG

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


@njit(nogil=True, error_model="numpy")
def _crop(  # type: ignore[no-untyped-def]
    image, key, seed, epoch, scale_min, scale_max, ratio_min, ratio_max, hflip, interpolation,
    scratch, target,
) -> None:  # fmt: skip
    """Crop, resize and flip a decoded sample, as drawn for this epoch."""
    top, left, height, width = draw_crop(
        seed, epoch, key, image.shape[0], image.shape[1], scale_min, scale_max, ratio_min, ratio_max
    )
    mirror = draw_flip(seed, epoch, key, hflip)
    resize(image, top, left, height, width, interpolation, mirror, scratch, target)


_crop = keep_compiled(_crop, *parts)


def decode_crops(
    keys: Integers, seed: int, epoch: int, file: int, offsets: Integers, sizes: Integers,
    modes: Integers, heights: Integers, widths: Integers, scale_min: float, scale_max: float,
    ratio_min: float, ratio_max: float, hflip: float, interpolation: int,
    encoded: Bytes, staging: Bytes, scratch: Bytes, images: Bytes, status: Bytes,
) -> None:  # fmt: skip
    """Do what ``decode.decode_crops`` does, with the same arguments; no INTER_AREA."""
    drawing = scale_min, scale_max, ratio_min, ratio_max, hflip, interpolation

    def sample(slot: int, thread: int) -> int:
        index = keys[slot] % len(offsets)
        height, width, size = int(heights[index]), int(widths[index]), int(sizes[index])
        source = staging[thread, : 3 * height * width]
        data = encoded[thread, :size] if modes[index] == JPG else source
        try:
            read = os.preadv(file, [data.data], int(offsets[index]))
        except OSError:
            return UNREAD
        if read != size:
            return UNREAD
        image = source.reshape(height, width, 3)
        if modes[index] == JPG and not decode(data, image):
            return DAMAGED
        _crop(image, keys[slot], seed, epoch, *drawing, scratch[thread], images[slot])
        return DONE

    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for slot in range(thread, len(keys), len(staging)):
                status[slot] = sample(slot, thread)
        except BaseException as error:
            failures.append(error)

    if len(keys) == 0:  # a trial, so that compiling has a time of its own
        black = np.zeros((1, 1, 3), np.uint8)
        room = np.empty((1, 1, 3), np.uint8)
        _crop(black, np.int64(0), seed, epoch, *drawing, np.empty(64, np.uint8), room)
        return
    # New ones for each batch, which costs little, and daemons: a disk that hangs lets Python end.
    threads = [
        threading.Thread(target=work, args=(k,), daemon=True, name=f"semabench-decode-{k}")
        for k in range(len(staging))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def decode(data: Bytes | bytes, image: Bytes) -> bool:
    """Decode a JPEG into ``image`` (H, W, 3); False where libjpeg-turbo fails, or warns."""
    try:
        found = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, buffer=image.reshape(-1))
    except ValueError:
        return False
    return bool(found.shape == image.shape)
