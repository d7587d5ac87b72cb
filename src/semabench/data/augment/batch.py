"""A recipe's augmentation of training batches: before and after normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semabench.config.schema import RecipeConfig
from semabench.data.augment.erase import erase
from semabench.data.augment.layers import apply_layer
from semabench.data.augment.plan import Layer, plan_color_jitter, plan_erasing, plan_rand_augment
from semabench.data.augment.policy import RandAugment, parse_rand_augment
from semabench.data.sampling import Samples


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

    Args:
        pixels: what to do before normalisation; an empty one does nothing.
        random_erase: probability that a sample gets a rectangle of noise.
        seed: of the run.

    Cost (``benchmarks/augment.py``): reading and writing every changed sample once a layer, for
    the copy and ``rand-m9-mstd0.5-inc1``'s two layers, is 4 times the batch's uint8 size: 154 MB,
    0.04 ms, for 256 pictures of 224² on an H200. Plain torch operations move some twenty times
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
