"""A batch's whole preparation in buffers that stay where they are: what a CUDA graph replays.

The host draws (`BatchPlan.load`: RandAugment or jitter, erasing, mixing) into pinned memory of a
fixed layout, which one copy brings to the device; there launches of fixed shape (`kernels`) do what
`BatchAugment`, `Normalize` and `Mix` do, for whatever has been drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from semabench.data.augment.batch import BatchAugment, Normalize
from semabench.data.augment.kernels import apply_layer, finish
from semabench.data.augment.operations import ALONG_X, ALONG_Y, line_terms, rotation_terms
from semabench.data.augment.plan import OPS, Layer, plan_erasing
from semabench.data.draws import Samples
from semabench.data.mixup import Mix

_X = [OPS.index(name) for name in ALONG_X]
_Y = [OPS.index(name) for name in ALONG_Y]
_ROTATE = OPS.index("Rotate")
_SLOTS = 3  # host buffers in turn: a copy may still read the one of two steps ago


class _Field(NamedTuple):
    name: str
    dtype: type
    shape: tuple[int, ...]


class HostBuffer:
    """Named arrays side by side in pinned memory, and the same on the device.

    Args:
        fields: of the layout.
        device: where.
    """

    def __init__(self, fields: Sequence[_Field], device: torch.device) -> None:
        sizes = [int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in fields]
        starts = np.cumsum([0, *(-(-size // 8) * 8 for size in sizes)]).tolist()
        cuda = device.type == "cuda"
        self.host = [
            torch.zeros(starts[-1], dtype=torch.uint8, pin_memory=cuda) for _ in range(_SLOTS)
        ]
        self.sent = [torch.cuda.Event() if cuda else None for _ in range(_SLOTS)]
        self.memory = torch.zeros(starts[-1], dtype=torch.uint8, device=device)
        self.slot = 0
        places = list(zip(fields, starts, sizes, strict=False))
        self.arrays: list[dict[str, np.ndarray]] = [
            {
                f.name: host.numpy()[start : start + size].view(f.dtype).reshape(f.shape)
                for f, start, size in places
            }
            for host in self.host
        ]
        self.on_device = {
            f.name: self.memory[start : start + size]
            .view(torch.from_numpy(np.empty(0, f.dtype)).dtype)
            .view(f.shape)
            for f, start, size in places
        }

    def begin(self) -> dict[str, np.ndarray]:
        """Return the host's arrays of the next step, to be filled."""
        self.slot = (self.slot + 1) % _SLOTS
        if (event := self.sent[self.slot]) is not None:
            event.synchronize()  # of three steps ago: done long since
        return self.arrays[self.slot]

    def send(self) -> None:
        """Copy what has been filled to the device; nobody waits."""
        self.memory.copy_(self.host[self.slot], non_blocking=True)
        if (event := self.sent[self.slot]) is not None:
            event.record()


class StaticAugment:
    """Prepares batches of one size and resolution, from uint8 images to the model's input.

    Args:
        augment, normalize, mix: what to do.
        batch_size: B.
        resolution: R.
        device: a GPU (or a CPU, in Triton's interpreter).
    """

    def __init__(
        self,
        augment: BatchAugment,
        normalize: Normalize,
        mix: Mix,
        batch_size: int,
        resolution: int,
        device: torch.device,
    ) -> None:
        self.augment, self.mix = augment, mix
        self.resolution = resolution
        policy = augment.pixels.rand_augment
        self.layers = policy.layers if policy else 3 * (augment.pixels.color_jitter > 0)
        n, layers = batch_size, self.layers
        self.buffer = HostBuffer(
            [
                _Field("terms", np.float64, (layers, n, 6)),
                _Field("values", np.float64, (layers, n)),
                _Field("seeds", np.int64, (n,)),
                _Field("ops", np.int32, (layers, n)),
                _Field("boxes", np.int32, (n, 4)),
                _Field("mode", np.int32, (1,)),
                _Field("box", np.int32, (4,)),
                _Field("lam", np.float32, (2,)),
                _Field("share", np.float64, (1,)),
            ],
            device,
        )
        shape = batch_size, resolution, resolution, 3
        self.scratch = [
            torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(min(layers, 2))
        ]
        self.tables = torch.empty((batch_size, 3, 256), dtype=torch.uint8, device=device)
        self.images = torch.empty(shape, dtype=torch.float32, device=device)
        self.fill = augment.fill.to(device)
        self.shift = normalize.shift.reshape(3).to(device)
        self.scale = normalize.scale.reshape(3).to(device)

    def load(self, samples: Samples) -> None:
        """Draw what happens to a batch (from torch's CPU generator: the mixing) and send it."""
        arrays = self.buffer.begin()
        for k, layer in enumerate(self.augment.pixels.plan(samples)):
            arrays["ops"][k], arrays["values"][k] = layer.ops, layer.values
            arrays["terms"][k] = _terms(layer, self.resolution)
        arrays["boxes"][:] = 0
        if self.augment.random_erase > 0:
            boxes = plan_erasing(
                self.augment.random_erase,
                self.resolution,
                self.augment.seed,
                samples.epoch,
                samples.keys,
            )
            fields = [boxes.tops, boxes.lefts, boxes.heights, boxes.widths]
            arrays["boxes"][boxes.slots] = np.stack(fields, 1)
            arrays["seeds"][boxes.slots] = boxes.seeds
        draw = self.mix.draw(self.resolution, self.resolution)
        arrays["mode"][0], arrays["box"][:] = draw.mode, draw.box
        arrays["lam"][:], arrays["share"][0] = (draw.lam, 1 - draw.lam), draw.share
        self.buffer.send()

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the model's input and its targets as `load` has drawn; launches only.

        Args:
            images: uint8 (B, 3, R, R), channels-last.
            labels: int64 (B,).

        Returns:
            float32 (B, 3, R, R), channels-last, a buffer that the next call overwrites; labels, or
            float32 (B, num_classes) where batches are mixed.
        """
        plan = self.buffer.on_device
        pixels = images.permute(0, 2, 3, 1)
        for k in range(self.layers):
            target = self.scratch[k % 2]
            apply_layer(
                pixels, target, plan["ops"][k], plan["values"][k], plan["terms"][k],
                self.tables, self.fill, self.augment.pixels.interpolation == "bicubic",
            )  # fmt: skip
            pixels = target
        finish(
            pixels, self.images, self.shift, self.scale, plan["boxes"], plan["seeds"],
            plan["mode"], plan["box"], plan["lam"],
        )  # fmt: skip
        return self.images.permute(0, 3, 1, 2), self.mix.targets(labels, plan["share"][0])


def _terms(layer: Layer, size: int) -> np.ndarray:
    """Return what maps an output to an input coordinate: float64 (B, 6), of x and of y."""
    terms = np.zeros((len(layer.ops), 6))
    along_x, along_y = np.isin(layer.ops, _X), np.isin(layer.ops, _Y)
    turned = layer.ops == _ROTATE
    if along_x.any():
        terms[along_x, :3] = line_terms(layer.ops[along_x], layer.values[along_x], size)[0]
        terms[along_x, 4] = 1.0
    if along_y.any():
        terms[along_y, 3:] = line_terms(layer.ops[along_y], layer.values[along_y], size)[0]
        terms[along_y, 0] = 1.0
    if turned.any():
        terms[turned] = rotation_terms(layer.values[turned], size).reshape(-1, 6)
    return terms
