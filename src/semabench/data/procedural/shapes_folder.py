"""Write the embedded dataset as an ordinary folder tree, whole or not at all."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semabench.data.procedural.shapes import CLASSES, FREQUENCIES, draw_scene, render_scene
from semabench.errors import SemabenchError
from semabench.files import PARTIAL_SUFFIX, atomic_write
from semabench.processes import WorkerPool, worker_count
from semabench.progress import item_bar, note

SETTINGS_NAME = "shapes.json"
VERSION = 2
"""Raised whenever the same settings would give other images."""

_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}  # fine colours stay
_CHUNK = 32


def generate_shapes(
    out_dir: Path,
    *,
    train: int = 5400,
    val: int = 720,
    size: int = 96,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write the dataset below ``out_dir``: ``train/<class>/000000.jpg …`` and ``val/…``.

    An image depends on (seed, split, class, number) only, so any number of workers writes the
    same bytes, and a larger dataset begins with the smaller one. The tree is built under a
    temporary name and renamed when whole; a call that finds it there with the same settings does
    nothing.

    Args:
        out_dir: the folder to create.
        train: images in the training split, spread over the nine classes as evenly as can be.
        val: images in the validation split, likewise.
        size: width and height in pixels; at least 48 to hold the finest textures.
        seed: another seed, other images.
        workers: processes; by default as many as cores.

    Returns:
        ``out_dir``.

    Raises:
        SemabenchError: an impossible setting, a folder with other content, or a full disk.
    """
    if min(train, val) < len(CLASSES):
        raise SemabenchError(
            f"shapes needs at least {len(CLASSES)} images a split, one a class: "
            f"train is {train}, val is {val}."
        )
    if size < 2 * FREQUENCIES[1]:
        raise SemabenchError(
            f"shapes of {size} px cannot hold the finest textures: size must be at least "
            f"{2 * FREQUENCIES[1]:.0f}."
        )
    if seed < 0:
        raise SemabenchError(f"seed must be 0 or more, got {seed}.")
    settings = {"version": VERSION, "train": train, "val": val, "size": size, "seed": seed}
    if _is_there(out_dir, settings):
        note(f"{out_dir} is already there with the same settings: nothing to do.")
        return out_dir
    partial = out_dir.with_name(f"{out_dir.name}{PARTIAL_SUFFIX}.{os.getpid()}")
    try:
        _write_tree(partial, settings, worker_count(workers))
        partial.rename(out_dir)
    except OSError as error:
        if _is_there(out_dir, settings):  # another process was faster
            return out_dir
        raise SemabenchError(f"cannot write {out_dir}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out_dir


_Place = tuple[str, int, int]  # split, label, number: with the seed they decide every pixel


@dataclass(frozen=True)
class _Draw:
    """What a worker does: draw images and write them below ``folder``."""

    folder: Path
    size: int
    seed: int

    def __call__(self, places: list[_Place]) -> str:
        """Return an empty string, or why an image could not be written."""
        try:
            for split, label, number in places:
                key = [self.seed, ("train", "val").index(split), label, number]
                scene = draw_scene(label, np.random.default_rng(key))
                buffer = io.BytesIO()
                Image.fromarray(render_scene(scene, self.size)).save(buffer, **_JPEG)
                path = self.folder / split / CLASSES[label] / f"{number:06d}.jpg"
                path.write_bytes(buffer.getvalue())
        except OSError as error:
            return error.strerror or str(error)
        return ""


def _write_tree(folder: Path, settings: dict[str, int], workers: int) -> None:
    places = [
        (split, *divmod(index, len(CLASSES))[::-1])
        for split in ("train", "val")
        for index in range(settings[split])
    ]
    for split in ("train", "val"):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
    chunks = [places[i : i + _CHUNK] for i in range(0, len(places), _CHUNK)]
    draw = _Draw(folder, settings["size"], settings["seed"])
    with WorkerPool(draw, min(workers, len(chunks))) as pool, item_bar() as bar:
        task = bar.add_task("drawing shapes", total=len(places))
        for chunk, failure in zip(chunks, pool.map(chunks), strict=True):
            if failure:
                raise OSError(failure)
            bar.advance(task, len(chunk))
    atomic_write(folder / SETTINGS_NAME, json.dumps(settings, indent=2) + "\n")


def _is_there(out_dir: Path, settings: dict[str, int]) -> bool:
    """Return whether ``out_dir`` is this dataset; an empty folder counts as none.

    Raises:
        SemabenchError: it is something else.
    """
    try:
        if not out_dir.exists() or not any(out_dir.iterdir()):
            return False
        there = json.loads((out_dir / SETTINGS_NAME).read_text())
    except (OSError, ValueError) as error:
        raise SemabenchError(
            f"{out_dir} exists and is not a shapes dataset: move it away or choose another folder."
        ) from error
    for name, value in settings.items():
        if there.get(name) != value:
            raise SemabenchError(
                f"{out_dir} was made with {name} = {there.get(name)}, not {value}: "
                "move it away or choose another folder."
            )
    return True
