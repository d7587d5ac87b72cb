"""Logits without gradients: recorded or not, they are the same."""

import logging

import pytest
import torch
from torch import nn

from semabench.data.augment.batch import Normalize
from semabench.models import build_model
from semabench.training.forward import Forward
from semabench.training.graphs import WARMUP


def forward_of(model: nn.Module, device: str, precision: str, graph: bool) -> Forward:
    normalize = Normalize((0.5,) * 3, (0.25,) * 3).to(device)
    return Forward(model.to(device).eval(), normalize, torch.device(device), precision, graph=graph)


def batches(device: str, sizes: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (4, 3, s, s), dtype=torch.uint8, generator=generator).to(device)
        for s in sizes
    ]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_logits_follow_the_weights_and_each_size(device, precision, monkeypatch):
    """Also inside a context that has cast weights before, as Lightning's may have."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    torch.manual_seed(0)
    model = build_model("sema_nano", num_classes=4, resolution=32, options={})
    recorded = forward_of(model, device, precision, graph=True)
    launched = forward_of(model, device, precision, graph=False)
    images = batches(device, [32] * (WARMUP + 3) + [48] * (WARMUP + 2) + [32])
    seen = []
    with torch.autocast(device, torch.bfloat16):
        model(images[0].float())
        for batch in images:
            with torch.no_grad():
                for weight in model.parameters():
                    weight.mul_(1.01)
            found = recorded(batch)
            assert torch.equal(found, launched(batch))
            assert not found.requires_grad
            seen.append(found.float().sum().item())
    assert len(set(seen)) == len(seen)
    assert len(recorded._recorded) == (2 if device == "cuda" else 0)
    assert recorded.graph is (device == "cuda")
    recorded.release()
    assert torch.equal(recorded(images[0]), launched(images[0]))


@pytest.mark.gpu
def test_what_cannot_be_recorded_runs_without_and_says_why(caplog):
    class Asking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :4] * float(x.sum() > -1e9)  # waits for the device

    forward = forward_of(Asking(), "cuda", "32-true", graph=True)
    with caplog.at_level(logging.WARNING):
        for batch in batches("cuda", [8] * (WARMUP + 3)):
            assert forward(batch).shape == (4, 4)
    assert not forward.graph
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("evaluation runs without a CUDA graph: ")
