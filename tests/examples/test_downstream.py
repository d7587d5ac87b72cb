"""Our backbones under the heads of others: segmentation-models-pytorch's, torchvision's."""

from __future__ import annotations

import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

import semabench  # noqa: F401

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ["sema_nano", "mila_nano", "linear_nano", "vmamba_nano"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", ["Unet", "FPN", "UPerNet"])
def test_segmentation_heads_take_them_at_any_size(name, head):
    model = getattr(smp, head)(f"tu-{name}", encoder_weights=None, classes=3)
    for height, width in ((64, 64), (96, 160)):
        logits = model(torch.randn(2, 3, height, width))
        assert logits.shape == (2, 3, height, width)
    logits.square().mean().backward()
    gradients = {n: p.grad for n, p in model.encoder.named_parameters()}
    assert [n for n, g in gradients.items() if g is None and not n.startswith("model.norm")] == []


class Pyramid(nn.Module):
    """All stages of a backbone, through torchvision's feature pyramid."""

    out_channels = 16

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = timm.create_model(name, features_only=True)
        self.pyramid = FeaturePyramidNetwork(self.backbone.feature_info.channels(), 16)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        stages = OrderedDict((str(i), stage) for i, stage in enumerate(self.backbone(x)))
        found: dict[str, torch.Tensor] = self.pyramid(stages)
        return found


@pytest.mark.parametrize("name", NAMES)
def test_torchvisions_detector_learns_from_them_and_finds(name):
    torch.manual_seed(0)
    anchors = AnchorGenerator(tuple((2**k,) for k in range(4, 8)), ((1.0,),) * 4)
    model = FasterRCNN(
        Pyramid(name), num_classes=2, rpn_anchor_generator=anchors, min_size=64, max_size=96
    )
    boxes = {"boxes": torch.tensor([[4.0, 4.0, 30.0, 28.0]]), "labels": torch.tensor([1])}
    losses = model([torch.rand(3, 64, 96)], [boxes])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert next(model.backbone.backbone.parameters()).grad is not None
    (found,) = model.eval()([torch.rand(3, 64, 80)])
    assert found["boxes"].shape[1] == 4


def test_the_example_trains_and_tests_at_growing_resolution(monkeypatch, capsys):
    words = "--encoders sema_nano --steps 2 --batch 16 --resolution 64 --evaluate 64 96"
    monkeypatch.setattr(sys, "argv", ["segmentation.py", *words.split()])
    runpy.run_path(str(EXAMPLES / "segmentation.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["64", "96"]
    assert all("mIoU" in line and "img/s" in line for line in lines)
