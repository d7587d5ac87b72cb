"""From stored samples to a batch of crops by FFCV's native library and numba, a thread a core.

This module needs ffcv, and is imported only where it is used.

ffcv's own pipeline is not used, for four reasons. Its decoders draw crops from numba's per-thread
generators, which makes batches depend on the number of workers; they drop the decoder's return
code, which turns a damaged image into wrong pixels; they resize with INTER_AREA only; and they
stage ``batch × (batches_ahead + 2)`` images of the largest size, pinned, where one a thread does.
"""

from __future__ import annotations

from numba import get_thread_id, njit, prange, types

from semabench.data.ffcv.kernels import (
    AREA,
    DAMAGED,
    DONE,
    UNREAD,
    by_name,
    draw_crop,
    draw_flip,
    keep_compiled,
    parts,
    pread,
)
from semabench.data.ffcv.native import native_library
from semabench.data.ffcv.resample import resize
from semabench.data.image import JPG

_library = native_library()
_imdecode = by_name(
    _library, "imdecode", types.int32,
    types.intp, types.uint64,  # JPEG data, bytes
    types.uint32, types.uint32,  # height and width, unused
    types.intp,  # pixels
    *[types.uint32] * 6,  # height and width, offset x and y, scale as a fraction
    types.uint8, types.uint8,  # crop, flip: C's bool
)  # fmt: skip
# 0; source, height, width; top, bottom, left, right; target, height, width
_resize_area = by_name(_library, "resize", types.void, *[types.int64] * 11)


@njit(nogil=True, error_model="numpy")
def _mirror(image) -> None:  # type: ignore[no-untyped-def]
    """Flip an (H, W, 3) image horizontally in place."""
    height, width = image.shape[0], image.shape[1]
    for y in range(height):
        for x in range(width // 2):
            for channel in range(3):
                other = image[y, width - 1 - x, channel]
                image[y, width - 1 - x, channel] = image[y, x, channel]
                image[y, x, channel] = other


@njit(parallel=True, nogil=True, error_model="numpy")
def decode_crops(  # type: ignore[no-untyped-def]
    keys, seed, epoch, file, offsets, sizes, modes, heights, widths,
    scale_min, scale_max, ratio_min, ratio_max, hflip, interpolation,
    encoded, staging, scratch, images, status,
) -> None:  # fmt: skip
    """Decode, crop, resize and flip the samples of one batch, as drawn for this epoch.

    Args:
        keys: int64 (B,), samples, see `draws`; none is padding.
        file: descriptor of the .beton.
        offsets, sizes, modes, heights, widths: one entry a sample of the file, int64.
        interpolation: ``AREA`` or a value of ``resample.SUPPORT``.
        encoded: uint8 (threads, bytes of the largest JPEG).
        staging: uint8 (threads, bytes of the largest image, decoded).
        scratch: uint8 (threads, what `resize` needs).
        images: uint8 (B, R, R, 3), written.
        status: uint8 (B,), written as each sample is finished.
    """
    for slot in prange(len(keys)):
        index = keys[slot] % len(offsets)
        height, width = heights[index], widths[index]
        pixels = 3 * height * width
        thread = get_thread_id()
        source = staging[thread, :pixels]
        data = encoded[thread] if modes[index] == JPG else source
        size = sizes[index]
        if pread(file, data.ctypes.data, size, offsets[index]) != size:
            status[slot] = UNREAD
            continue
        if modes[index] == JPG and _imdecode(
            data.ctypes.data, size, height, width, source.ctypes.data,
            height, width, 0, 0, 1, 1, 0, 0,
        ) != 0:  # fmt: skip
            status[slot] = DAMAGED
            continue
        image = source.reshape(height, width, 3)
        top, left, crop_height, crop_width = draw_crop(
            seed, epoch, keys[slot], height, width, scale_min, scale_max, ratio_min, ratio_max
        )
        mirror = draw_flip(seed, epoch, keys[slot], hflip)
        if interpolation == AREA:
            _resize_area(
                0, image.ctypes.data, height, width, top, top + crop_height, left,
                left + crop_width, images[slot].ctypes.data, images.shape[1], images.shape[2],
            )  # fmt: skip
            if mirror:
                _mirror(images[slot])
        else:
            resize(
                image, top, left, crop_height, crop_width, interpolation, mirror,
                scratch[thread], images[slot],
            )  # fmt: skip
        status[slot] = DONE


decode_crops = keep_compiled(decode_crops, *parts)
