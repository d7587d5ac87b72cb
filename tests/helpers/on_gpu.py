"""One comparison for all models: the GPU's outputs are the CPU's."""

import torch
from torch import nn


def assert_gpu_agrees_with_cpu(model: nn.Module) -> None:
    """Compare in true float32 (convolutions, left alone, multiply in TF32); try bfloat16."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 96, 80, generator=generator)
    expected = model(images)
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        torch.testing.assert_close(
            model.cuda()(images.cuda()).cpu(), expected, rtol=1e-3, atol=1e-4
        )
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert torch.isfinite(model(images.cuda())).all()
