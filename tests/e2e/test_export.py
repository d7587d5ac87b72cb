"""A trained run as a file: loaded again, without semabench, it gives the model's logits."""

from __future__ import annotations

import json
import sys

import onnxruntime
import pytest
import torch
from torch import nn

import semabench
from semabench import cli
from semabench.errors import SemabenchError
from semabench.export import export
from semabench.models import export_file
from semabench.models.export_file import write_checked


def test_onnx_takes_any_batch(copied, capsys):
    cli.main(["export", str(copied.run_dir), "--to", "onnx", "--dynamic"])
    (file,) = (copied.run_dir / "export").glob("*.onnx")
    assert f"{file}: takes any batch of 32 px; logits differ by" in capsys.readouterr().out
    images = torch.randn(1, 3, 32, 32)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        expected = semabench.load(copied.run_dir)(images)
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)
    told = json.loads(file.with_name(file.name + ".json").read_text())
    assert told["takes"] == "any batch of 32 px"
    assert len(told["classes"]) == logits.shape[1]
    assert sorted(p.name for p in file.parent.iterdir()) == [file.name, f"{file.name}.json"]


def test_torchs_own_at_another_size(copied, tmp_path):
    file = tmp_path / "deep" / "model.pt2"
    made = export(copied.run_dir, "torch-export", resolution=48, out=file)
    assert (made.file, made.takes, made.difference < 1e-6) == (file, "one image of 48 px", True)
    images = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        expected = semabench.load(copied.run_dir)(images)
        found = torch.export.load(file).module()(images)
    torch.testing.assert_close(found, expected)


class Small(nn.Module):
    """Of any size: what a model without windows is to an exporter."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)))


def test_aotinductor(tmp_path):
    assert write_checked(Small().eval(), 16, (), "aoti", tmp_path / "made.partial") < 1e-6
    assert [p.name for p in tmp_path.iterdir()] == ["made.partial"]


def test_any_size_where_the_trace_holds(tmp_path):
    free = (0, 2, 3)
    assert write_checked(Small().eval(), 16, free, "torch-export", tmp_path / "made") < 1e-6


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.ones(1, 9), "logits differ by .*of the largest"),
        (torch.full((1, 9), torch.nan), "logits differ by nan of the largest"),
        (torch.ones(1, 1, 9), r"gives \(1, 1, 9\), not \(1, 9\)"),
    ],
)
def test_other_logits_are_not_written(copied, tmp_path, monkeypatch, logits, message):
    other = {"torch-export": lambda program, file: lambda _: logits}
    monkeypatch.setattr(export_file, "_WRITERS", export_file._WRITERS | other)
    with pytest.raises(SemabenchError, match=rf"cannot be exported to torch-export \(.*{message}"):
        export(copied.run_dir, "torch-export", out=tmp_path / "made.pt2")
    assert list(tmp_path.glob("made*")) == []


def test_a_size_that_no_model_has(copied):
    with pytest.raises(SemabenchError, match="--resolution must be at least"):
        export(copied.run_dir, "onnx", resolution=-5)


def test_a_missing_package_is_named(copied, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SemabenchError, match=r"needs onnxruntime: pip install 'semabench\[export"):
        export(copied.run_dir, "onnx", out=tmp_path / "made.onnx")
    assert list(tmp_path.glob("made*")) == []
