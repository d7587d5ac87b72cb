"""Training pictures kept to validate on, so that choices need not see the validation set."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np

from semabench.data.sources import PictureList
from semabench.errors import SemabenchError


def require_holdout(what: str, settings: dict[str, Any], wanted: float | None) -> None:
    """Raise unless a packed file holds the part of the pictures that the config asks for.

    Args:
        what: the file, for the message.
        settings: of its sidecar.
        wanted: ``data.holdout``.
    """
    if (found := settings.get("holdout")) != wanted:
        raise SemabenchError(
            f"{what} was made with holdout {found or 'none'}, but data.holdout is "
            f"{wanted or 'null'}: set data.holdout to that, or pack and render with --holdout "
            "into a directory of its own."
        )


def split_off(pictures: PictureList, share: float, *, held_out: bool) -> PictureList:
    """Return the training pictures that are held out, as split ``val``, or those that are not.

    Of each class, ``share`` of the pictures is held out, rounded, at least one: those whose paths
    have the smallest SHA-256. The choice depends on the pictures' names alone.

    Args:
        pictures: the whole training split.
        share: in (0, 1).

    Raises:
        SemabenchError: a bad share, or a class of which nothing would be left to train on.
    """
    if not 0 < share < 1:
        raise SemabenchError(
            f"holdout is a share of the training pictures, in (0, 1), not {share}."
        )
    held = np.zeros(len(pictures), dtype=bool)
    for label, name in enumerate(pictures.classes):
        indices = np.flatnonzero(pictures.labels == label)
        count = max(1, round(share * len(indices)))
        if count >= len(indices):
            raise SemabenchError(
                f"class {name} has {len(indices)} training picture(s): holdout={share} would leave "
                "none of them to train on."
            )
        paths = (os.fsencode(pictures.paths[index]) for index in indices)
        digests = [hashlib.sha256(path).digest() for path in paths]
        held[indices[sorted(range(len(indices)), key=digests.__getitem__)[:count]]] = True
    (chosen,) = np.nonzero(held if held_out else ~held)
    return dataclasses.replace(
        pictures,
        split="val" if held_out else pictures.split,
        paths=[pictures.paths[index] for index in chosen],
        sizes=pictures.sizes[chosen],
        labels=pictures.labels[chosen],
        offsets=None if pictures.offsets is None else pictures.offsets[chosen],
    )


def held_out_setting(holdout: float | None) -> dict[str, Any]:
    """Return what a sidecar's settings say of it: nothing where nothing is held out."""
    return {} if holdout is None else {"holdout": holdout}
