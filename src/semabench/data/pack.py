"""``semabench data pack``: labelled pictures -> one .beton for training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semabench.data.holdout import held_out_setting
from semabench.data.pictures import (
    JPG,
    Encoded,
    decode,
    encode_jpeg,
    encode_raw,
    is_plain_jpeg,
    opencv,
    shrink,
)
from semabench.data.publish import Job, Published, check_on_error, plan, publish
from semabench.data.sources import find_pictures
from semabench.data.workers import worker_count
from semabench.errors import SemabenchError, nearest

MODES = ("jpg", "raw", "proportion")


@dataclass(frozen=True)
class PackEncoder:
    """Decode one source picture and encode it for the file; runs in worker processes."""

    max_resolution: int | None
    proportion: float
    quality: int
    seed: int

    def __call__(self, index: int, data: bytes) -> Encoded:
        """Return what is stored for the picture with these bytes.

        Raises:
            UnreadablePictureError: it cannot be decoded whole.
        """
        picture = decode(data)
        small = shrink(picture, self.max_resolution)
        if unit_draw(self.seed, index) >= self.proportion:
            return encode_raw(np.asarray(small))
        if small is picture and is_plain_jpeg(data):
            return Encoded(JPG, picture.width, picture.height, data)
        return encode_jpeg(small, self.quality)


def pack(
    src: Path,
    out_dir: Path,
    *,
    split: str = "train",
    max_resolution: int | None = 500,
    mode: str = "jpg",
    quality: int | None = None,
    proportion: float | None = None,
    seed: int | None = None,
    holdout: float | None = None,
    workers: int | None = None,
    on_error: str = "stop",
    overwrite: bool = False,
) -> Published:
    """Write ``out_dir/<split>.beton`` and its sidecar; the same bytes for any number of workers.

    Args:
        src: a folder tree or the ILSVRC2012 tars, see :func:`sources.find_pictures`.
        out_dir: created if need be.
        split: which split to pack.
        max_resolution: cap of the *longest* side in pixels; ``None`` keeps all sizes.
        mode: ``jpg``; ``raw`` (pixels, fastest to load, about ten times the space); or
            ``proportion``, a mixture. A JPEG that needs no shrinking is stored as it is, without
            a second loss, if FFCV's decoder is sure to read it (baseline, three components).
        quality: JPEG quality of those encoded here, 1–100; 90 if not given.
        proportion: share of JPEG in mode ``proportion``; 0.5 if not given.
        seed: of the draw which samples are JPEG in mode ``proportion``; 0 if not given.
        holdout: share of the training pictures that is left out, to validate on.
        workers: processes; as many as cores if not given.
        on_error: ``stop`` at an unreadable picture, or ``skip`` and list it in the sidecar.
        overwrite: replace a file made from other pictures or with other settings.

    Raises:
        SemabenchError: bad arguments, no such data, unreadable pictures, a full disk, …
    """
    encoder, settings = _encoder(mode, max_resolution, quality, proportion, seed)
    check_on_error(on_error)
    processes = worker_count(workers)
    # A missing library is to be told now, not from inside a worker.
    packages = {} if max_resolution is None else {"opencv": opencv().__version__}
    pictures = find_pictures(src, split, holdout)
    settings |= held_out_setting(holdout)
    job = Job(
        target=Path(out_dir) / f"{split}.beton",
        plan=plan("pack", pictures, settings, packages),
        pictures=pictures,
        encode=encoder,
        chunk=8,
        workers=processes,
        on_error=on_error,
    )
    return publish(job, overwrite)


def unit_draw(seed: int, index: int) -> float:
    """Return a number in [0, 1) that depends on (seed, index) only."""
    digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _encoder(
    mode: str,
    max_resolution: int | None,
    quality: int | None,
    proportion: float | None,
    seed: int | None,
) -> tuple[PackEncoder, dict[str, Any]]:
    """Check the options; an option without effect in this mode is an error, not ignored."""
    if mode not in MODES:
        raise SemabenchError(f"unknown mode '{mode}'.{nearest(mode, MODES)}")
    if mode == "raw" and quality is not None:
        raise SemabenchError("quality has no effect with mode 'raw': leave one of them out.")
    if mode != "proportion" and (proportion is not None or seed is not None):
        raise SemabenchError(f"proportion and seed have no effect with mode '{mode}'.")
    quality = 90 if quality is None else quality
    if not 1 <= quality <= 100:
        raise SemabenchError(f"quality must be between 1 and 100, got {quality}.")
    if proportion is None:
        proportion = {"jpg": 1.0, "raw": 0.0, "proportion": 0.5}[mode]
    if not 0 <= proportion <= 1:
        raise SemabenchError(f"proportion must be between 0 and 1, got {proportion}.")
    if max_resolution is not None and not 1 <= max_resolution <= 65535:
        raise SemabenchError(f"max_resolution must be between 1 and 65535, got {max_resolution}.")
    settings: dict[str, Any] = {"mode": mode, "max_resolution": max_resolution}
    if mode != "raw":
        settings |= {"quality": quality, "plain_jpeg": "copied"}
    if mode == "proportion":
        settings |= {"proportion": proportion, "seed": seed or 0}
    return PackEncoder(max_resolution, proportion, quality, seed or 0), settings
