"""Drawing on the unit square: coordinates, outlines and waves, evaluated at any resolution.

A picture is a function of position, x to the right and y downwards, both in 0..1. Rendering it
at resolution R averages it over each of the R×R square pixels, in closed form where there is
one. So a picture rendered at R equals one rendered larger and then reduced by area averaging (up
to the rounding of outlines), and it never aliases below the Nyquist frequency, R/2 cycles.
"""

from __future__ import annotations

from math import gamma

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""float64 throughout: results then agree between processors but for ties in rounding."""

OUTLINES = ("disc", "square", "diamond", "squircle")
_POWER = {"disc": 2.0, "squircle": 4.0, "diamond": 1.0}


def pixel_centres(start: int, stop: int, resolution: int) -> Array:
    """Return the coordinates (stop - start,) of the centres of pixels start..stop-1."""
    return (np.arange(start, stop, dtype=np.float64) + 0.5) / resolution


def plane_wave(
    x: Array, y: Array, *, frequency: float, angle: float, phase: float, resolution: int
) -> Array:
    """Return cos(2π·frequency·u + phase) averaged over each pixel, u = x·cos(angle) + y·sin(angle).

    The mean of a plane wave over a square pixel is the wave at the centre times
    sinc(f_x/R)·sinc(f_y/R). Beyond the Nyquist frequency, where pixels can only show an alias,
    it is zero.

    Args:
        x, y: pixel centres, broadcast against each other.
        frequency: cycles over the width of the picture.
        angle: direction in which the wave advances, radians; 0 gives vertical stripes.
    """
    across = frequency * np.cos(angle)
    down = frequency * np.sin(angle)
    if max(abs(across), abs(down)) >= resolution / 2:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape))
    attenuation = np.sinc(across / resolution) * np.sinc(down / resolution)
    return attenuation * np.cos(2 * np.pi * (across * x + down * y) + phase)


def coverage(x: Array, y: Array, *, outline: str, radius: float, resolution: int) -> Array:
    """Return the share of each pixel, 0..1, that lies within an outline centred on the origin.

    The outlines are balls |x|^p + |y|^p ≤ r^p (a square for p = ∞), scaled to the area π·radius²
    of the disc, so that an outline says nothing about the amount of ink. The edge is taken as
    straight within a pixel.
    """
    if outline == "square":
        distance = np.maximum(abs(x), abs(y)) - radius * np.sqrt(np.pi) / 2
    else:
        power = _POWER[outline]
        size = radius * np.sqrt(np.pi / _ball_area(power))
        norm = (abs(x) ** power + abs(y) ** power) ** (1 / power)
        distance = (norm - size) / (np.sqrt(2) if outline == "diamond" else 1)
    return np.clip(0.5 - distance * resolution, 0, 1)


def _ball_area(power: float) -> float:
    """Area of |x|^p + |y|^p ≤ 1: 4·Γ(1 + 1/p)² / Γ(1 + 2/p)."""
    return 4 * gamma(1 + 1 / power) ** 2 / gamma(1 + 2 / power)
