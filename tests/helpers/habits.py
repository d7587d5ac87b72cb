"""What every model does as timm's do."""

import torch
from torch import nn


def assert_checkpointing_changes_nothing(model: nn.Module, switched: list[nn.Module]) -> None:
    """Compare gradients with and without gradient checkpointing.

    Args:
        model: takes pictures of 32 px.
        switched: its parts that have the switch ``grad_checkpointing``.
    """
    model.train()
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        torch.manual_seed(1)  # drops, where there are any, must be the same in both
        model.set_grad_checkpointing(enable)
        assert all(part.grad_checkpointing is enable for part in switched)
        model(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for without, with_it in zip(*gradients, strict=True):
        torch.testing.assert_close(with_it, without, rtol=1e-4, atol=1e-5)
