"""Stochastic depth, as timm's; drawn beforehand where blocks run twice."""

import pytest
import timm.layers
import torch

from semabench.models import build_model
from semabench.models.drop_path import DropPath


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_timms_to_the_bit(dtype):
    x = torch.randn(64, 3, 5, dtype=dtype)
    torch.manual_seed(0)
    expected = timm.layers.DropPath(0.3).train()(x)
    torch.manual_seed(0)
    assert torch.equal(DropPath(0.3).train()(x), expected)
    assert 0 < int((expected == 0).all(dim=(1, 2)).sum()) < 64
    assert DropPath(0.3).eval()(x) is x


@pytest.mark.parametrize("name", ["sema_nano", "vmamba_nano", "vim_nano"])
def test_recomputing_blocks_drop_what_the_others_drop(name):
    """Loss and gradients are equal to the bit, and the generator ends where it would."""
    results = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = build_model(name, num_classes=4, resolution=32, drop_path_rate=0.5, options={})
        model.train().set_grad_checkpointing(enable)
        loss = model(torch.randn(8, 3, 32, 32)).square().sum()
        loss.backward()
        gradients = [p.grad for p in model.parameters()]
        results.append([loss.detach(), *gradients, torch.rand(1)])
    for without, with_it in zip(*results, strict=True):
        assert torch.equal(without, with_it)
