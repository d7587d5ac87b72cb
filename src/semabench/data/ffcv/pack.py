"""``semabench data pack`` and ``render``: labelled images to .beton files.

Packing keeps images of their own sizes for training; rendering makes them exactly what timm's
evaluation transform does. Either writes the same bytes for any number of workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semabench.data.ffcv import native
from semabench.data.ffcv.format import ALLOCATION, METADATA
from semabench.data.ffcv.publish import Job, Published, finished, publish, require_space
from semabench.data.image import (
    JPG,
    Encoded,
    EvalTransform,
    decode,
    encode_jpeg,
    encode_raw,
    is_plain_jpeg,
    shrink,
)
from semabench.data.sources import find_images
from semabench.errors import SemabenchError, nearest
from semabench.processes import worker_count

MODES = ("jpg", "raw", "proportion")
#: What to do at an unreadable image.
ON_ERROR = ("stop", "skip")
#: Pillow filters that timm's transform takes; its "random" would not be an evaluation.
INTERPOLATIONS = ("bicubic", "bilinear", "box", "hamming", "lanczos", "nearest")
MIN_RESOLUTION = 32
_CHUNK_BYTES = 4 << 20
_ROW_BYTES = METADATA.itemsize + ALLOCATION.itemsize


@dataclass(frozen=True)
class PackEncoder:
    """Decode one source image and encode it for the file; runs in worker processes."""

    max_resolution: int | None
    proportion: float
    quality: int
    seed: int

    def __call__(self, index: int, data: bytes) -> Encoded:
        """Return what is stored for the image with these bytes.

        Raises:
            UnreadableImageError: it cannot be decoded whole.
            SemabenchError: it is to be shrunk, and OpenCV is missing.
        """
        image = decode(data)
        small = shrink(image, self.max_resolution)
        if unit_draw(self.seed, index) >= self.proportion:
            return encode_raw(np.asarray(small))
        if small is not image or not is_plain_jpeg(data):
            return encode_jpeg(small, self.quality)
        # The loader is the judge: it refuses what Pillow reads with a warning.
        if not native.reads(data, np.asarray(image)):
            return encode_jpeg(small, self.quality)._replace(mended=True)
        return Encoded(JPG, image.width, image.height, data)


@dataclass(frozen=True)
class RenderEncoder:
    """Apply timm's evaluation transform to one image; runs in worker processes."""

    transform: EvalTransform

    def __call__(self, index: int, data: bytes) -> Encoded:
        """Return the raw pixels (R, R, 3) of the image with these bytes."""
        return encode_raw(self.transform(data))


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
    """Write ``out_dir/<split>.beton`` and its sidecar.

    Args:
        src: a folder tree or the ILSVRC2012 tars, see ``find_images``.
        out_dir: created if need be.
        split: which split to pack.
        max_resolution: cap of the *longest* side in pixels; ``None`` keeps all sizes.
        mode: ``jpg``; ``raw`` (pixels, fastest to load, about ten times the space); or
            ``proportion``, a mixture. A JPEG that needs no shrinking is stored as it is, without
            a second loss, if FFCV's decoder is sure to read it (baseline, three components).
        quality: JPEG quality of those encoded here, 1–100; 90 if not given.
        proportion: share of JPEG in mode ``proportion``; 0.5 if not given.
        seed: of the draw which samples are JPEG in mode ``proportion``; 0 if not given.
        holdout: share of the training images that is left out, to validate on.
        workers: processes; as many as cores if not given.
        on_error: ``stop`` at an unreadable image, or ``skip`` and list it in the sidecar.
        overwrite: replace a file made from other images or with other settings.

    Raises:
        SemabenchError: bad arguments, no such data, unreadable images, a full disk, …
    """
    encoder, settings = _encoder(mode, max_resolution, quality, proportion, seed)
    processes = _processes(workers, on_error)
    images = find_images(src, split, holdout)
    job = Job(
        kind="pack",
        target=Path(out_dir) / f"{split}.beton",
        images=images,
        settings=settings | _held_out(holdout),
        versions={} if max_resolution is None else _versions(opencv="cv2"),
        encode=encoder,
        chunk=images.together,
        workers=processes,
        skip=on_error == "skip",
        overwrite=overwrite,
    )
    return publish(job)


def render(
    src: Path,
    out_dir: Path,
    resolutions: Sequence[int],
    *,
    split: str = "val",
    crop_pct: float = 0.875,
    interpolation: str = "bicubic",
    holdout: float | None = None,
    workers: int | None = None,
    on_error: str = "stop",
    overwrite: bool = False,
) -> list[Published]:
    """Write ``out_dir/<split>-<R>.beton``, raw, for each resolution R; see ``EvalTransform``.

    Args:
        resolutions: each at least 32.
        crop_pct: as in timm, in (0, 1].
        interpolation: one of ``INTERPOLATIONS``.
        holdout: render this share of the *training* images as the split ``val``.
        src, out_dir, split, workers, on_error, overwrite: as ``pack``'s.

    Raises:
        SemabenchError: bad arguments, too little disk space (told before anything is written),
            unreadable images, …
    """
    resolutions = list(dict.fromkeys(resolutions))
    _check_rendering(resolutions, crop_pct, interpolation)
    processes = _processes(workers, on_error)
    out_dir = Path(out_dir)
    images = find_images(src, split, holdout)
    jobs = {}
    for resolution in resolutions:
        transform = EvalTransform(resolution, crop_pct, interpolation)
        assert transform.timms  # built once here, since importing timm takes seconds
        jobs[resolution] = Job(
            kind="render",
            target=out_dir / f"{split}-{resolution}.beton",
            images=images,
            settings=dataclasses.asdict(transform) | _held_out(holdout),
            versions=_versions(timm="timm", torchvision="torchvision"),
            encode=RenderEncoder(transform),
            chunk=max(1, _CHUNK_BYTES // (3 * resolution**2)),
            workers=processes,
            skip=on_error == "skip",
            overwrite=overwrite,
        )
    done = {r: finished(job) for r, job in jobs.items()}
    missing = [r for r, published in done.items() if published is None]
    needed = sum(len(images) * (3 * r * r + _ROW_BYTES) for r in missing)
    sides = ", ".join(map(str, missing))
    require_space(out_dir, needed, f"rendering {len(images):,} images at {sides} px")
    return [done[r] or publish(job) for r, job in jobs.items()]


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


def _check_rendering(resolutions: list[int], crop_pct: float, interpolation: str) -> None:
    if not resolutions:
        raise SemabenchError("no resolution given: name at least one, for example 224.")
    for resolution in resolutions:
        if not MIN_RESOLUTION <= resolution <= 16384:
            raise SemabenchError(
                f"resolution must be between {MIN_RESOLUTION} and 16384, got {resolution}."
            )
    if not 0 < crop_pct <= 1:
        raise SemabenchError(f"crop_pct must be in (0, 1], got {crop_pct}.")
    if interpolation not in INTERPOLATIONS:
        raise SemabenchError(
            f"unknown interpolation '{interpolation}'.{nearest(interpolation, INTERPOLATIONS)}"
        )


def _processes(workers: int | None, on_error: str) -> int:
    if on_error not in ON_ERROR:
        raise SemabenchError(f"unknown on_error '{on_error}'.{nearest(on_error, ON_ERROR)}")
    return worker_count(workers)


def _held_out(holdout: float | None) -> dict[str, Any]:
    """Return what a sidecar's settings say of it: nothing where nothing is held out."""
    return {} if holdout is None else {"holdout": holdout}


def _versions(**modules: str) -> dict[str, str]:
    """Return the versions of those modules that are installed, by the name of their package."""
    found = {}
    for package, module in modules.items():
        try:
            found[package] = str(importlib.import_module(module).__version__)
        except ImportError:
            continue
    return found
