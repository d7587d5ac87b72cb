"""The embedded dataset: scenes whose class needs fine texture *and* global layout.

Each scene holds three large shapes filled with one fine plane wave. Its class is a pair:

- texture: the wave's stripes run horizontally, vertically, or diagonally (either way);
- layout: the three shapes stand in a row, in a column, or in a triangle.

Both are drawn independently and uniformly, so an observer of one cue alone is right in at most
one third of all cases, and pixel values alone, with their distribution the same for all classes,
say nothing. The waves' frequencies are spread from coarse to fine: at low resolution most are
flattened to grey, and the more pixels, the more of the textures can be told apart. All cues are
unchanged by a horizontal flip.

An image is a function of position on the unit square, x to the right and y downwards. Rendering it
at resolution R averages it over each of the R×R square pixels, in closed form where there is one.
So an image rendered at R equals one rendered larger and then reduced by area averaging (up to the
rounding of outlines), and it never aliases below the Nyquist frequency, R/2 cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    x: Array, y: Array, frequency: float, angle: float, phase: float, resolution: int
) -> Array:
    """Return cos(2π·frequency·u + phase) averaged over each pixel, u = x·cos(angle) + y·sin(angle).

    The mean of a plane wave over a square pixel is the wave at the centre times
    sinc(f_x/R)·sinc(f_y/R). Beyond the Nyquist frequency, where pixels can only show an alias,
    it is zero.

    Args:
        x, y: pixel centres, broadcast against each other.
        frequency: cycles over the width of the image.
        angle: direction in which the wave advances, radians; 0 gives vertical stripes.
    """
    across = frequency * np.cos(angle)
    down = frequency * np.sin(angle)
    if max(abs(across), abs(down)) >= resolution / 2:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape))
    attenuation = np.sinc(across / resolution) * np.sinc(down / resolution)
    return attenuation * np.cos(2 * np.pi * (across * x + down * y) + phase)


def coverage(x: Array, y: Array, outline: str, radius: float, resolution: int) -> Array:
    """Return the share of each pixel, 0..1, that lies within an outline centred on the origin.

    The outlines are balls |x|^p + |y|^p ≤ r^p (a square for p = ∞), scaled to the area π·radius²
    of the disc, so that an outline says nothing about the amount of ink. The edge is taken as
    straight within a pixel.
    """
    if outline == "square":
        distance = np.maximum(abs(x), abs(y)) - radius * np.sqrt(np.pi) / 2
    else:
        power = _POWER[outline]
        area = 4 * gamma(1 + 1 / power) ** 2 / gamma(1 + 2 / power)  # of |x|^p + |y|^p ≤ 1
        size = radius * np.sqrt(np.pi / area)
        norm = (abs(x) ** power + abs(y) ** power) ** (1 / power)
        distance = (norm - size) / (np.sqrt(2) if outline == "diamond" else 1)
    return np.clip(0.5 - distance * resolution, 0, 1)


TEXTURES = ("horizontal", "vertical", "diagonal")
LAYOUTS = ("row", "column", "triangle")
CLASSES = tuple(f"{texture}-{layout}" for texture in TEXTURES for layout in LAYOUTS)

FREQUENCIES = (6.0, 24.0)
"""Range of the texture in cycles over the image's width: 24 needs 48 pixels to exist at all."""

_TILT = np.deg2rad(12)


@dataclass(frozen=True)
class Shape:
    """One filled outline; lengths in image widths, colours (3,) in 0..1, angles in radians."""

    x: float
    y: float
    radius: float
    rotation: float
    outline: str
    colour: Array
    swing: Array  # the wave goes from colour - swing to colour + swing
    frequency: float
    angle: float
    phase: float


@dataclass(frozen=True)
class Scene:
    """An image before it has pixels: a gradient and slow waves, with shapes painted on."""

    base: Array  # (3,)
    waves: tuple[tuple[Array, float, float, float], ...]  # swing (3,), frequency, angle, phase
    shapes: tuple[Shape, ...]


def draw_scene(label: int, generator: np.random.Generator) -> Scene:
    """Draw the scene of class ``CLASSES[label]``; everything but the two cues is left to chance.

    With the same generator state, scenes of another texture differ by the angle of the waves
    alone: the other draws know nothing of the class.
    """
    texture, layout = divmod(label, len(LAYOUTS))
    low, high = FREQUENCIES
    frequency = low * (high / low) ** generator.random()
    centres = _place(LAYOUTS[layout], generator)
    shapes = [
        _shape(generator, x, y, generator.uniform(0.085, 0.115), frequency, TEXTURES[texture])
        for x, y in centres
    ]
    distractors = _distractors(generator, centres)
    waves = tuple(
        (generator.uniform(-0.16, 0.16, 3), generator.uniform(0.2, 2.5), angle, phase)
        for angle, phase in generator.uniform(0, 2 * np.pi, (3, 2))
    )
    return Scene(generator.uniform(0.2, 0.8, 3), waves, (*distractors, *shapes))


def render_scene(scene: Scene, resolution: int) -> NDArray[np.uint8]:
    """Return the scene as (resolution, resolution, 3) pixels, each the mean over its area."""
    grid = pixel_centres(0, resolution, resolution)
    x, y = grid[None, :], grid[:, None]
    canvas = np.empty((resolution, resolution, 3))
    canvas[:] = scene.base
    for swing, frequency, angle, phase in scene.waves:
        wave = plane_wave(x, y, frequency, angle, phase, resolution)
        canvas += wave[..., None] * swing
    for shape in scene.shapes:
        _paint(canvas, shape, resolution)
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def _place(layout: str, generator: np.random.Generator) -> Array:
    """Return the three centres (3, 2), all shapes wholly within the image."""
    if layout == "triangle":
        turn = generator.uniform(0, 2 * np.pi) + 2 * np.pi / 3 * np.arange(3)
        offsets = generator.uniform(0.17, 0.22) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    else:
        turn = generator.uniform(-_TILT, _TILT) + (np.pi / 2 if layout == "column" else 0)
        steps = generator.uniform(0.24, 0.28) * np.array([-1.0, 0.0, 1.0])
        offsets = steps[:, None] * np.array([np.cos(turn), np.sin(turn)])
    offsets = offsets + generator.uniform(-0.015, 0.015, (3, 2))
    margin = 0.13
    low, high = margin - offsets.min(axis=0), 1 - margin - offsets.max(axis=0)
    return offsets + generator.uniform(low, high)


def _shape(
    generator: np.random.Generator,
    x: float,
    y: float,
    radius: float,
    frequency: float,
    texture: str,
) -> Shape:
    angle = {"horizontal": np.pi / 2, "vertical": 0.0, "diagonal": np.pi / 4}[texture]
    mirror = generator.choice((-1, 1))  # only the diagonal has two forms, but all classes draw it
    colour, swing = _two_colours(generator)
    return Shape(
        x=x,
        y=y,
        radius=radius,
        rotation=generator.uniform(0, 2 * np.pi),
        outline=str(generator.choice(OUTLINES)),
        colour=colour,
        swing=swing,
        frequency=frequency,
        angle=mirror * angle + generator.uniform(-_TILT, _TILT),
        phase=generator.uniform(0, 2 * np.pi),
    )


def _two_colours(generator: np.random.Generator) -> tuple[Array, Array]:
    """Return a mean colour and a swing about it, within 0..1 and of a contrast that can be seen."""
    direction = 1 + 0.25 * generator.normal(size=3)  # light and dark first, hue a little
    swing = direction / np.abs(direction).max() * generator.uniform(0.25, 0.45)
    return generator.uniform(np.abs(swing), 1 - np.abs(swing)), swing


def _distractors(generator: np.random.Generator, centres: Array) -> list[Shape]:
    """Return two to five small plain shapes that touch none of the large ones."""
    found: list[Shape] = []
    wanted = generator.integers(2, 6)
    while len(found) < wanted:
        x, y = generator.uniform(0.04, 0.96, 2)
        if np.hypot(*(centres - [x, y]).T).min() > 0.19:
            plain = _shape(generator, x, y, generator.uniform(0.02, 0.045), 0.0, "vertical")
            found.append(plain)
    return found


def _paint(canvas: Array, shape: Shape, resolution: int) -> None:
    """Paint a shape over the pixels that its bounding box touches, in place."""
    reach = 1.5 * shape.radius
    left, right, top, bottom = (
        int(np.clip(round(edge * resolution), 0, resolution))
        for edge in (shape.x - reach, shape.x + reach, shape.y - reach, shape.y + reach)
    )
    x = pixel_centres(left, right, resolution)[None, :] - shape.x
    y = pixel_centres(top, bottom, resolution)[:, None] - shape.y
    cos, sin = np.cos(shape.rotation), np.sin(shape.rotation)
    ink = coverage(cos * x + sin * y, cos * y - sin * x, shape.outline, shape.radius, resolution)
    wave = plane_wave(x, y, shape.frequency, shape.angle, shape.phase, resolution)
    colour = shape.colour + wave[..., None] * shape.swing
    patch = canvas[top:bottom, left:right]
    patch += ink[..., None] * (colour - patch)
