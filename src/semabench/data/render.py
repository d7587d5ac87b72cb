"""``semabench data render``: pictures exactly as timm's evaluation transform makes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semabench.data.beton import ALLOCATION, METADATA
from semabench.data.holdout import held_out_setting
from semabench.data.pictures import (
    MAX_PIXELS,
    Encoded,
    UnreadablePictureError,
    decode,
    encode_raw,
)
from semabench.data.placing import require_space
from semabench.data.publish import (
    Job,
    Published,
    check_on_error,
    finished,
    plan,
    publish,
)
from semabench.data.sources import find_pictures
from semabench.data.workers import worker_count
from semabench.errors import SemabenchError, nearest

#: Pillow filters that timm's transform takes; its "random" would not be an evaluation.
INTERPOLATIONS = ("bicubic", "bilinear", "box", "hamming", "lanczos", "nearest")
MIN_RESOLUTION = 32
_CHUNK_BYTES = 4 << 20
_ROW_BYTES = METADATA.itemsize + ALLOCATION.itemsize


@dataclass(frozen=True)
class RenderEncoder:
    """Apply timm's evaluation transform to one picture; runs in worker processes."""

    resolution: int
    crop_pct: float
    interpolation: str

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the pixels, for the sidecar."""
        return dataclasses.asdict(self)

    @cached_property
    def transform(self) -> Any:
        """timm's transform without its normalisation: PIL picture -> uint8 (3, R, R).

        Pickled for a worker, it is built there again; forked, it is inherited.
        """
        from timm.data.transforms_factory import create_transform

        return create_transform(
            input_size=self.resolution,
            is_training=False,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            normalize=False,
        )

    def __call__(self, index: int, data: bytes) -> Encoded:
        """Return the raw pixels (R, R, 3) of the picture with these bytes.

        Raises:
            UnreadablePictureError: it cannot be decoded whole, or is so long and thin that
                timm's resize would not fit in memory.
        """
        picture = decode(data)
        # timm brings the short side to R / crop_pct before it crops.
        long, short = max(picture.size), min(picture.size)
        scaled = math.floor(self.resolution / self.crop_pct)
        if scaled * scaled * long / short > MAX_PIXELS:
            raise UnreadablePictureError(
                f"{picture.width}×{picture.height} is too long and thin to be resized"
            )
        return encode_raw(np.ascontiguousarray(self.transform(picture).permute(1, 2, 0).numpy()))


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
    """Write ``out_dir/<split>-<R>.beton``, raw, for each resolution R.

    The pixels equal, byte for byte, those of ``timm.data.create_transform(R, is_training=False,
    crop_pct=…, interpolation=…)`` before normalisation: the short side is resized to
    floor(R / crop_pct) and the centre R × R is cut out.

    Args:
        src: a folder tree or the ILSVRC2012 tars, see :func:`sources.find_pictures`.
        out_dir: created if need be.
        resolutions: each at least 32.
        split: which split to render.
        crop_pct: as in timm, in (0, 1].
        interpolation: one of ``INTERPOLATIONS``.
        holdout: render this share of the *training* pictures as the split ``val``.
        workers: processes; as many as cores if not given.
        on_error: ``stop`` at an unreadable picture, or ``skip`` and list it in the sidecar.
        overwrite: replace files made from other pictures or with other settings.

    Raises:
        SemabenchError: bad arguments, too little disk space (told before anything is written),
            unreadable pictures, …
    """
    resolutions = list(dict.fromkeys(resolutions))
    _check_options(resolutions, crop_pct, interpolation)
    check_on_error(on_error)
    processes = worker_count(workers)
    out_dir = Path(out_dir)
    pictures = find_pictures(src, split, holdout)
    jobs = {}
    for resolution in resolutions:
        encoder = RenderEncoder(resolution, crop_pct, interpolation)
        assert encoder.transform  # built once here, since importing timm takes seconds
        jobs[resolution] = Job(
            target=out_dir / f"{split}-{resolution}.beton",
            plan=plan(
                "render", pictures, encoder.settings | held_out_setting(holdout), _versions()
            ),
            pictures=pictures,
            encode=encoder,
            chunk=max(1, _CHUNK_BYTES // (3 * resolution**2)),
            workers=processes,
            on_error=on_error,
        )
    done = {r: finished(job.target, job.plan, overwrite) for r, job in jobs.items()}
    missing = [r for r, published in done.items() if published is None]
    needed = sum(len(pictures) * (3 * r * r + _ROW_BYTES) for r in missing)
    sides = ", ".join(map(str, missing))
    require_space(out_dir, needed, f"rendering {len(pictures):,} pictures at {sides} px")
    return [done[r] or publish(job, overwrite) for r, job in jobs.items()]


def _versions() -> dict[str, str]:
    import timm
    import torchvision

    return {"timm": timm.__version__, "torchvision": torchvision.__version__}


def _check_options(resolutions: list[int], crop_pct: float, interpolation: str) -> None:
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
