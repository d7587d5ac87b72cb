"""A recipe's augmentation of whole batches: pixels, normalisation, erasing.

Samples with like operations are worked on together, picked by indices that the CPU knows, so that
nothing waits for the device. Launches cost more than bytes (`benchmarks/augment.py`): the samples
of a layer are gathered once and put back once, and what the CPU can make, tables, terms, even
counting numbers, travels in one copy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from semabench.config.schema import RecipeConfig
from semabench.data.augment.operations import (
    ALONG_X,
    ALONG_Y,
    FIXED,
    autocontrast_tables,
    contrast_tables,
    enhance,
    equalize_tables,
    fixed_tables,
    look_up,
    move,
    moves,
)
from semabench.data.augment.plan import (
    OPS,
    Boxes,
    Layer,
    RandAugment,
    parse_rand_augment,
    plan_color_jitter,
    plan_erasing,
    plan_rand_augment,
)
from semabench.data.draws import Samples


def send(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Return the arrays as tensors on ``device``, views of one buffer.

    From pinned memory, since the driver may let a copy from other memory wait for the stream.
    """
    starts = np.cumsum([0, *(-(-array.nbytes // 8) * 8 for array in arrays)])  # aligned for views
    buffer = torch.empty(int(starts[-1]), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, array in zip(starts, arrays, strict=False):
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffer.numpy()[start : start + array.nbytes] = flat
    sent = buffer.to(device, non_blocking=True)
    found = []
    for start, array in zip(starts.tolist(), arrays, strict=False):
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        found.append(sent[start : start + array.nbytes].view(dtype).view(array.shape))
    return found


# In the order in which a layer's samples are gathered: those of tables, blends, moves.
_TABLES = (FIXED, ("AutoContrast",), ("Equalize",), ("Contrast",))
_BLENDS = (("Color",), ("Sharpness",))
_MOVES = ((*ALONG_X, *ALONG_Y), ("Rotate",))
_GROUPS = (*_TABLES, *_BLENDS, *_MOVES)


def _groups() -> np.ndarray:
    """Return each operation's place in ``_GROUPS``; those that do nothing come after all groups.

    NONE, which is -1, finds the last entry.
    """
    of = np.full(len(OPS) + 1, len(_GROUPS))
    for place, names in enumerate(_GROUPS):
        of[[OPS.index(name) for name in names]] = place
    return of


_GROUP_OF = _groups()


def apply_layer(pixels: Tensor, layer: Layer, fill: Tensor, interpolation: str) -> None:
    """Change uint8 pixels (B, R, R, 3), contiguous, in place by a layer of B samples.

    ``fill``, uint8 (3,), and ``interpolation`` are those of rotation, shear and translation.
    """
    groups = _GROUP_OF[layer.ops]
    sizes = np.bincount(groups, minlength=len(_GROUPS) + 1)[:-1].tolist()
    if not any(sizes):
        return
    order = np.argsort(groups, kind="stable")[: sum(sizes)]
    of_tables, of_blends, of_moves = sizes[:4], sizes[4:6], sizes[6:]
    ops, values = layer.ops[order], layer.values[order]
    tabled, blended = sum(of_tables), sum(of_blends)
    blends, moved = slice(tabled, tabled + blended), slice(tabled + blended, None)
    arrays = [
        order,
        fixed_tables(ops[: sizes[0]], values[: sizes[0]]),
        values[tabled - sizes[3] : tabled].astype(np.float32),
        256 * np.arange(3 * tabled, dtype=np.int32),
        values[blends].astype(np.float32),
        *moves(ops[moved], values[moved], of_moves, pixels.shape[1]),
    ]
    places, known, contrasts, starts, factors, *terms = send(arrays, pixels.device)
    chosen = pixels.index_select(0, places)
    made = []
    if tabled:
        tables = _tables(chosen[:tabled], of_tables, known, contrasts, starts)
        made.append(look_up(chosen[:tabled], tables, starts))
    if blended:
        made.append(enhance(chosen[blends], factors, of_blends[0]))
    made += move(chosen[moved], of_moves, terms, fill, interpolation)
    pixels.index_copy_(0, places, torch.cat(made))


def _tables(
    pixels: Tensor, sizes: list[int], known: Tensor, contrasts: Tensor, starts: Tensor
) -> Tensor:
    """Return all samples' tables, uint8 (n, 3, 256): of groups of these sizes, see ``_TABLES``."""
    first, second, third, _ = itertools.accumulate(sizes)
    tables = [known[:, None].expand(-1, 3, -1)]
    if second > first:
        tables.append(autocontrast_tables(pixels[first:second]))
    if third > second:
        tables.append(equalize_tables(pixels[second:third], starts[: 3 * (third - second)]))
    if len(contrasts):
        tables.append(contrast_tables(pixels[third:], contrasts))
    return torch.cat(tables)


# SplitMix64 (Steele et al., OOPSLA'14), as the signed 64-bit integers that torch has.
_GAMMA, _MIX1, _MIX2 = (
    x - (1 << 64) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def erase(images: Tensor, boxes: Boxes) -> Tensor:
    """Fill the rectangles with standard normal noise, in place, and return the images.

    Noise is a function of a rectangle's seed and the place in it, on any device. Only erased
    pixels of the float (B, 3, R, R) are touched: their number is known on the CPU.
    """
    areas = boxes.heights * boxes.widths
    total = int(areas.sum())
    if not total:
        return images
    fields = np.stack([*boxes[:3], boxes.widths, np.cumsum(areas) - areas, boxes.seeds], 1)
    table, repeats = send([fields, areas], images.device)
    table = table.repeat_interleave(repeats, dim=0, output_size=total)
    slot, top, left, width, start, seed = table.unbind(1)
    place = torch.arange(total, device=images.device) - start
    row = place // width
    column = place - row * width
    pixels = images.permute(0, 2, 3, 1)
    pixels[slot, top + row, left + column] = noise(seed, place).to(images.dtype)
    return images


def noise(seeds: Tensor, places: Tensor) -> Tensor:
    """Return three standard normal numbers each: int64 (n,) and (n,) to float32 (n, 3).

    They are the quantiles at three 21-bit parts of number ``place`` of SplitMix64 from ``seed``.
    """
    z = seeds + (places + 1) * _GAMMA
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    z = z ^ _shift(z, 31)
    parts = (z[:, None] >> torch.arange(0, 63, 21, device=z.device)) & 0x1FFFFF
    centred = (parts.float() + 0.5) * 2.0**-20 - 1  # the middles of 2²¹ intervals of (−1, 1)
    return torch.erfinv(centred).mul_(math.sqrt(2))


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift 64 bits to the right, zeros coming in."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


@dataclass(frozen=True)
class PixelAugment:
    """What happens to pixels, as timm's ``create_transform`` puts it together.

    Like timm's, it leaves out colour jitter where there is RandAugment, fills what geometric
    operations uncover with the mean colour, and interpolates them as the crops are (timm draws
    bilinear or bicubic only where no interpolation is asked for; "area" counts as bicubic).
    """

    rand_augment: RandAugment | None = None
    color_jitter: float = 0.0
    fill: tuple[int, ...] = (124, 116, 104)
    interpolation: str = "bicubic"
    seed: int = 0

    def __bool__(self) -> bool:
        return self.rand_augment is not None or self.color_jitter > 0

    def plan(self, samples: Samples) -> list[Layer]:
        """Draw what happens to each sample; layers follow one another."""
        place = self.seed, samples.epoch, samples.keys
        if self.rand_augment is not None:
            return plan_rand_augment(self.rand_augment, *place)
        return plan_color_jitter(self.color_jitter, *place) if self.color_jitter > 0 else []


def pixel_augment(
    recipe: RecipeConfig, *, seed: int, mean: Sequence[float], interpolation: str
) -> PixelAugment:
    """Return a recipe's. ``mean`` is the model's, for pixels in 0…1."""
    policy = recipe.rand_augment
    return PixelAugment(
        rand_augment=None if policy is None else parse_rand_augment(policy),
        color_jitter=recipe.color_jitter,
        fill=tuple(min(255, round(255 * channel)) for channel in mean),
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
        seed=seed,
    )


class BatchAugment(nn.Module):
    """Augments whole batches on their device; nothing waits for it, and nothing is random beyond
    (seed, epoch, sample).

    Cost (``benchmarks/augment.py``): reading and writing every changed sample once a layer, for
    the copy and ``rand-m9-mstd0.5-inc1``'s two layers, is 4 times the batch's uint8 size: 154 MB,
    0.04 ms, for 256 images of 224² on an H200. Plain torch operations move some twenty times
    that, in about 280 operations, and 35 for erasing: their launches count as much as their bytes.
    """

    fill: Tensor

    def __init__(self, pixels: PixelAugment, random_erase: float, seed: int) -> None:
        super().__init__()
        self.pixels = pixels
        self.random_erase = random_erase
        self.seed = seed
        fill = torch.tensor(pixels.fill, dtype=torch.uint8)
        self.register_buffer("fill", fill, persistent=False)

    def change(self, images: Tensor, samples: Samples) -> Tensor:
        """Apply RandAugment or colour jitter: uint8 (B, 3, R, R) to the same, channels-last."""
        if not self.pixels:
            return images
        pixels = images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        for layer in self.pixels.plan(samples):
            apply_layer(pixels, layer, self.fill, self.pixels.interpolation)
        return pixels.permute(0, 3, 1, 2)

    def erase(self, images: Tensor, samples: Samples) -> Tensor:
        """Erase rectangles of normalised images, float (B, 3, R, R), in place."""
        if self.random_erase == 0:
            return images
        place = self.seed, samples.epoch, samples.keys
        return erase(images, plan_erasing(self.random_erase, images.shape[-1], *place))


class Normalize(nn.Module):
    """``(x / 255 - mean) / std`` per channel: (B, 3, R, R) uint8 to float32, layout kept."""

    shift: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        shift = 255 * torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch; the result is a new tensor."""
        return (images - self.shift).mul_(self.scale)
