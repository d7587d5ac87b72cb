"""Gradients averaged over all processes, each bucket as soon as its last gradient is there.

DDP's own reducer keeps state on the host that a CUDA graph cannot hold, copies each gradient by
itself, and wants to wrap the model. Here a bucket is one copy and one all-reduce, which NCCL's
stream runs beside the rest of the backward pass, captured or not; the host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 25 * 2**20  # as DDP's: large enough for the wires, small enough to begin early
FIRST_BUCKET_BYTES = 2**20


@dataclass
class _Bucket:
    parameters: list[nn.Parameter]
    flat: Tensor
    views: list[Tensor]
    missing: int = 0
    work: dist.Work | None = field(default=None, repr=False)


class GradientReducer:
    """Averages the gradients of ``parameters`` over the default process group.

    Args:
        parameters: those that are trained, in the order of the model; the last are ready first.
        buffers: such as BatchNorm's statistics, which rank 0 gives to all before each step.

    Use: ``begin()`` before the backward pass whose end completes the gradients (the last
    micro-batch's), ``finish()`` after it; then every ``grad`` is the mean over all processes.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], buffers: Sequence[Tensor] = ()) -> None:
        self.world_size = dist.get_world_size()
        self.buffers = [buffer for buffer in buffers if buffer.numel()]
        self.buckets = [_bucket(group) for group in _groups(parameters)]
        self.active = False
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                # Once all that is added to it in this pass is there.
                parameter.register_post_accumulate_grad_hook(
                    lambda _, bucket=bucket: self._arrived(bucket)
                )

    def sync_buffers(self) -> None:
        """Let all processes have rank 0's buffers, as under DDP: one broadcast a type."""
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self.buffers:
            kinds.setdefault(buffer.dtype, []).append(buffer)
        for buffers in kinds.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(flat, src=0)
            pieces = flat.split([buffer.numel() for buffer in buffers])
            for buffer, piece in zip(buffers, pieces, strict=True):
                buffer.copy_(piece.view_as(buffer))

    def begin(self) -> None:
        """Reduce in the backward pass that follows."""
        for bucket in self.buckets:
            bucket.missing, bucket.work = len(bucket.parameters), None
        self.active = True

    def finish(self) -> None:
        """Put the means in place of the gradients; on a GPU its stream waits, not the host.

        A parameter that got no gradient counts as zero.
        """
        self.active = False
        for bucket in self.buckets:
            if bucket.work is None:
                self._reduce(bucket)
        for bucket in self.buckets:
            assert bucket.work is not None
            bucket.work.wait()
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad = view

    def _arrived(self, bucket: _Bucket) -> None:
        if self.active:
            bucket.missing -= 1
            if not bucket.missing:
                self._reduce(bucket)

    def _reduce(self, bucket: _Bucket) -> None:
        grads = [p.grad for p in bucket.parameters]
        if any(grad is None for grad in grads):
            bucket.flat.zero_()
        pairs = [(v, g) for v, g in zip(bucket.views, grads, strict=True) if g is not None]
        if pairs:
            torch._foreach_copy_([v for v, _ in pairs], [g for _, g in pairs])
        bucket.flat.div_(self.world_size)  # before the sum, as DDP does
        bucket.work = dist.all_reduce(bucket.flat, async_op=True)


def _groups(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Cut parameters, last first, into buckets of one type and about equal size."""
    groups: list[list[nn.Parameter]] = []
    room = FIRST_BUCKET_BYTES
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        if not groups or room < size or parameter.dtype != groups[-1][0].dtype:
            room = FIRST_BUCKET_BYTES if not groups else BUCKET_BYTES
            groups.append([])
        groups[-1].append(parameter)
        room -= size
    return groups


def _bucket(parameters: list[nn.Parameter]) -> _Bucket:
    first = parameters[0]
    total = sum(parameter.numel() for parameter in parameters)
    flat = torch.zeros(total, dtype=first.dtype, device=first.device)
    pieces = flat.split([parameter.numel() for parameter in parameters])
    # As the parameter lies in memory, so that optimisers run over both alike.
    views = [
        piece.as_strided(parameter.size(), parameter.stride())
        for piece, parameter in zip(pieces, parameters, strict=True)
    ]
    return _Bucket(parameters, flat, views)
