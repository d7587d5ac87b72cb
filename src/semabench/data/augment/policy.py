"""RandAugment (Cubuk et al., 2020) as timm words it: ``rand-m9-mstd0.5-inc1``."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

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
        magnitude=values["m"],
        std=values["mstd"],
        layers=int(values["n"]),
        prob=values["p"],
        increasing=bool(values["inc"]),
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
