"""From a picture's encoded bytes to its pixels in a batch: the folder loader's work."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from PIL import Image

from semabench.data.augment.batch import PixelAugment
from semabench.data.augment.pillow import augment_picture
from semabench.data.draws import draw_crop, draw_flip
from semabench.data.pictures import decode
from semabench.data.render import RenderEncoder
from semabench.data.resizing import Schedule, resolution_at

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class Transform(ABC):
    """From a picture's encoded bytes to uint8 (R, R, 3) pixels."""

    resolution: int

    def resolution_at(self, epoch: int) -> int:
        """Return R in an epoch."""
        return self.resolution

    @abstractmethod
    def __call__(self, data: bytes, epoch: int, key: int) -> np.ndarray:
        """Raise ``UnreadablePictureError`` if the bytes are no whole picture."""


class TrainTransform(Transform):
    """torchvision's RandomResizedCrop and RandomHorizontalFlip with the draws of `draws`.

    ``augment`` is for those who want timm's own operations on the CPU.
    """

    def __init__(
        self,
        resolution: int,
        seed: int,
        crop: tuple[float, ...],
        hflip: float,
        interpolation: Image.Resampling,
        augment: PixelAugment | None = None,
        schedule: Schedule = (),
    ) -> None:
        self.resolution = resolution
        self.seed = seed
        self.crop = crop
        self.hflip = hflip
        self.interpolation = interpolation
        self.augment = augment
        self.schedule = schedule

    def resolution_at(self, epoch: int) -> int:
        """Return R in an epoch: progressive resizing may change it."""
        return resolution_at(epoch, self.resolution, self.schedule)

    def __call__(self, data: bytes, epoch: int, key: int) -> np.ndarray:
        """Crop, resize, flip and augment as drawn for the sample in this epoch."""
        picture = decode(data)
        top, left, height, width = draw_crop(
            self.seed, epoch, key, picture.height, picture.width, *self.crop
        )
        box = picture.crop((left, top, left + width, top + height))
        side = self.resolution_at(epoch)
        pixels = np.asarray(box.resize((side, side), self.interpolation))
        if draw_flip(self.seed, epoch, key, self.hflip):
            pixels = pixels[:, ::-1]
        if self.augment:
            flipped = Image.fromarray(np.ascontiguousarray(pixels))
            pixels = np.asarray(augment_picture(flipped, self.augment, epoch, key))
        return pixels


class EvalTransform(Transform):
    """timm's evaluation transform, by the code that renders .beton files."""

    def __init__(self, resolution: int, crop_pct: float, interpolation: str) -> None:
        self.resolution = resolution
        self.encoder = RenderEncoder(resolution, crop_pct, interpolation)

    def __call__(self, data: bytes, epoch: int, key: int) -> np.ndarray:
        """Resize the short side and cut out the centre."""
        pixels = np.frombuffer(self.encoder(key, data).data, np.uint8)
        return pixels.reshape(self.resolution, self.resolution, 3)
