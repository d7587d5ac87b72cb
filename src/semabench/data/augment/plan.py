"""What happens to each sample: drawn on the CPU from (seed, epoch, sample), for a whole batch.

A sample is a key of `draws`: its index in the dataset, and which of its copies it is. Nothing else
goes into a draw, so that a batch of one gives what a batch of a thousand does. RandAugment (Cubuk
et al., 2020) is worded as timm does: ``rand-m9-mstd0.5-inc1``.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from semabench.data.draws import STREAM_AUGMENT, STREAM_ERASE, STREAM_JITTER, WORD, philox
from semabench.errors import SemabenchError, nearest

#: timm's operations in timm's order; which of its two scales of Posterize, Solarize and the
#: enhancements is meant ("…Increasing" or not) is the policy's.
OPS = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd",
    "Color", "Contrast", "Brightness", "Sharpness",
    "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip
NONE = -1  # the op of a sample that a layer leaves alone

MAX_LEVEL = 10.0
_KEYS = ("m", "n", "p", "mstd", "inc")


@dataclass(frozen=True)
class RandAugment:
    """``layers`` operations one after another, each skipped with probability 1 − ``prob``.

    The level of an operation is drawn from N(magnitude, std²) and clipped to [0, 10].
    """

    magnitude: float = MAX_LEVEL
    std: float = 0.0
    layers: int = 2
    prob: float = 0.5
    increasing: bool = False  # operations grow stronger with the level


def parse_rand_augment(text: str) -> RandAugment:
    """Read timm's notation: ``rand`` and, in any order, m, n, p, mstd, inc with their numbers.

    Raises:
        SemabenchError: not of this form, or a part of timm's that is not built (mmax, t).
    """
    values = {"m": MAX_LEVEL, "n": 2.0, "p": 0.5, "mstd": 0.0, "inc": 0.0}
    head, *parts = text.split("-")
    if head != "rand":
        raise SemabenchError(f"rand_augment={text} must begin with 'rand-', as timm's do.")
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        key = match[1] if match else part
        if match is None or key not in _KEYS:
            raise SemabenchError(
                f"rand_augment={text}: '{part}' is not supported; there are "
                f"{', '.join(_KEYS)}, each with its number.{nearest(key, _KEYS)}"
            )
        values[key] = float(match[2])
    for key, high in (("m", MAX_LEVEL), ("n", 10), ("p", 1), ("mstd", 100), ("inc", 1)):
        whole = key in ("m", "n", "inc")
        if values[key] > high or (whole and values[key] != int(values[key])):
            kind = "a whole number" if whole else "a number"
            raise SemabenchError(f"rand_augment={text}: {key} must be {kind} up to {high:g}.")
    if values["n"] < 1:
        raise SemabenchError(f"rand_augment={text}: n must be at least 1.")
    return RandAugment(
        values["m"], values["mstd"], int(values["n"]), values["p"], bool(values["inc"])
    )


def arguments(
    ops: np.ndarray, levels: np.ndarray, negative: np.ndarray, increasing: bool
) -> np.ndarray:
    """Return each operation's argument at its level, as timm's ``LEVEL_TO_ARG``.

    Args:
        ops: int64, places in ``OPS``.
        levels: float64 in [0, 10].
        negative: bool; turns the sign of operations that have a direction.
        increasing: see ``RandAugment``.

    Returns:
        float64, in the operation's own unit: degrees (Rotate), bits kept (Posterize), threshold
        (Solarize), summand (SolarizeAdd), blending factor (Color … Sharpness), slope (Shear),
        share of the side (Translate); 0 for operations that have none.
    """
    share = levels / MAX_LEVEL
    sign = np.where(negative, -1.0, 1.0)
    bits = np.trunc(share * 4)
    threshold = np.minimum(256, np.trunc(share * 256))
    if increasing:
        bits, threshold = 4 - bits, 256 - threshold
        factor = np.maximum(0.1, 1.0 + sign * (share * 0.9))
    else:
        factor = share * 1.8 + 0.1
    of = dict.fromkeys(OPS, np.zeros_like(share))
    of["Rotate"] = sign * (share * 30.0)
    of["Posterize"], of["Solarize"] = bits, threshold
    of["SolarizeAdd"] = np.minimum(128, np.trunc(share * 110))
    of |= dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), factor)
    of |= dict.fromkeys(("ShearX", "ShearY"), sign * (share * 0.3))
    of |= dict.fromkeys(("TranslateXRel", "TranslateYRel"), sign * (share * 0.45))
    return np.choose(ops, [of[name] for name in OPS])


# timm.data.RandomErasing's defaults
ERASE_AREA = (0.02, 1 / 3)  # of the image
ERASE_MIN_ASPECT = 0.3
ERASE_ATTEMPTS = 10

_JITTER_ORDERS = np.array(
    list(itertools.permutations(OPS.index(op) for op in ("Brightness", "Contrast", "Color")))
)


class Layer(NamedTuple):
    """One operation a sample."""

    ops: np.ndarray  # int64 (B,): place in OPS, or NONE
    values: np.ndarray  # float64 (B,): its argument, see `arguments`


class Boxes(NamedTuple):
    """The rectangles to erase, those of samples that have one; all int64 (n,)."""

    slots: np.ndarray  # place in the batch
    tops: np.ndarray
    lefts: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    seeds: np.ndarray  # 64 bits where the rectangle's noise begins


def plan_rand_augment(policy: RandAugment, seed: int, epoch: int, keys: np.ndarray) -> list[Layer]:
    """Draw operations and levels of ``policy`` for samples ``keys``, int64 (B,)."""
    blocks = np.arange(policy.layers, dtype=np.uint64)
    words = philox(seed, epoch, _column(keys), STREAM_AUGMENT, blocks)
    ops = ((words[0] * np.uint64(len(OPS))) >> np.uint64(32)).astype(np.int64)
    applied = words[1] * WORD < policy.prob
    levels = policy.magnitude + policy.std * ndtri((words[2] + 0.5) * WORD)
    levels = np.clip(levels, 0.0, MAX_LEVEL)
    values = arguments(ops, levels, words[3] * WORD < 0.5, policy.increasing)
    ops = np.where(applied, ops, NONE)
    return [Layer(ops[:, layer], values[:, layer]) for layer in range(policy.layers)]


def plan_color_jitter(strength: float, seed: int, epoch: int, keys: np.ndarray) -> list[Layer]:
    """Draw brightness, contrast and saturation in random order, as torchvision's ColorJitter.

    Each factor is uniform in [max(0, 1 − strength), 1 + strength].
    """
    words = philox(seed, epoch, keys.astype(np.uint64), STREAM_JITTER)
    order = _JITTER_ORDERS[((words[3] * np.uint64(6)) >> np.uint64(32)).astype(np.int64)]
    low = max(0.0, 1.0 - strength)
    return [
        Layer(order[:, place], low + word * WORD * (1.0 + strength - low))
        for place, word in enumerate(words[:3])
    ]


def plan_erasing(prob: float, resolution: int, seed: int, epoch: int, keys: np.ndarray) -> Boxes:
    """Draw at most one rectangle a sample, as timm's RandomErasing does.

    Its share of the image is uniform, its aspect ratio (height / width) log-uniform; the first
    of ten tries that is smaller than the image in both directions is taken.
    """
    first = philox(seed, epoch, keys.astype(np.uint64), STREAM_ERASE)
    slots = np.flatnonzero(first[0] * WORD < prob)
    seeds = (first[1] << np.uint64(32) | first[2]).view(np.int64)[slots]
    blocks = np.arange(1, 1 + ERASE_ATTEMPTS, dtype=np.uint64)
    words = philox(seed, epoch, _column(keys[slots]), STREAM_ERASE, blocks)
    share = ERASE_AREA[0] + words[0] * WORD * (ERASE_AREA[1] - ERASE_AREA[0])
    area = share * resolution * resolution
    log_aspect = math.log(ERASE_MIN_ASPECT) * (1 - 2 * (words[1] * WORD))
    heights = np.rint(np.sqrt(area * np.exp(log_aspect))).astype(np.int64)
    widths = np.rint(np.sqrt(area / np.exp(log_aspect))).astype(np.int64)
    fits = (heights < resolution) & (widths < resolution)
    tops = (words[2] * WORD * (resolution - heights + 1)).astype(np.int64)
    lefts = (words[3] * WORD * (resolution - widths + 1)).astype(np.int64)
    chosen = np.flatnonzero(fits.any(axis=1))
    at = chosen, np.argmax(fits, axis=1)[chosen]
    return Boxes(slots[chosen], tops[at], lefts[at], heights[at], widths[at], seeds[chosen])


def _column(keys: np.ndarray) -> np.ndarray:
    return keys.astype(np.uint64)[:, None]
