"""Multiply-adds against hand counts and published numbers."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from semabench.evaluation.flops import count_gmacs, count_parameters
from semabench.models import build_model


def build(name, **kwargs):
    with torch.device("meta"):
        return build_model(
            name, **{"num_classes": 1000, "resolution": 224, "options": {}, **kwargs}
        )


@pytest.mark.parametrize(
    ("name", "gmacs", "tolerance"),
    [
        ("mila_tiny", 4.2, 0.02),
        ("mila_small", 7.3, 0.02),
        ("mila_base", 16.2, 0.02),
        ("sema_tiny", 4.4, 0.01),
        ("sema_small", 7.8, 0.01),
        ("sema_base", 17.3, 0.01),
        ("swin_tiny_patch4_window7_224", 4.5, 0.01),
        ("resnet18", 1.82, 0.01),
    ],
)
def test_published_and_predicted(name, gmacs, tolerance):
    assert count_gmacs(build(name), 224) == pytest.approx(gmacs, rel=tolerance)


class Attention(nn.Module):
    """A convolution, attention over its pixels, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)[:, None]
        return self.fc(scaled_dot_product_attention(x, x, x).mean(dim=(1, 2)))


class Looks(Attention):
    """The same, but it looks at its data, which meta tensors do not have."""

    def forward(self, x):
        return super().forward(x) if x.sum().item() == 0 else x


@pytest.mark.parametrize("cls", [Attention, Looks])
def test_counted_by_hand(cls):
    n = 16
    by_hand = n * 3 * 8 + 2 * n * n * 8 + 8 * 5
    model = cls().train()
    assert count_gmacs(model, 4) * 1e9 == pytest.approx(by_hand)
    assert model.training
    assert all(p.device.type == "cpu" and p.requires_grad for p in model.parameters())


def test_linear_mixers_grow_with_pixels_and_softmax_with_their_square():
    small, large = (count_gmacs(build("sema_nano"), r) for r in (224, 448))
    assert large / small == pytest.approx(4, rel=0.01)
    small, large = (count_gmacs(build("sema_nano", mixer="softmax"), r) for r in (224, 448))
    assert large / small > 8


def test_parameters():
    assert count_parameters(Attention()) == 3 * 8 + 8 + 16 + 8 * 5 + 5
