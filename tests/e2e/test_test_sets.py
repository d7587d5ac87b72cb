"""A stand-in of each test set of ImageNet's models, in the layout it is distributed in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from helpers.apps import run_here
from helpers.image_makers import WNIDS, jpeg, write_ilsvrc
from semabench.cli import main as semabench
from semabench.config.schema import DataConfig
from semabench.data.augment.batch import Normalize
from semabench.data.loader import create_eval_loader
from semabench.evaluation.classes import imagenet_wnids, wnids_of
from semabench.evaluation.real_labels import real_labels
from semabench.models import build_model
from semabench.results.store import read_rows


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file of weights of a thousand classes, as others publish them."""
    torch.manual_seed(0)
    model = build_model("sema_nano", num_classes=1000, resolution=32, options={})
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


def place(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(seed=seed))


def v2(root: Path) -> None:
    for number in range(1000):
        place(root / str(number) / "a.jpeg", number)


def some_classes(root: Path) -> None:
    for k, wnid in enumerate(imagenet_wnids()[5::5]):
        place(root / wnid / f"0.{k}.jpg", k)


def sketch(root: Path) -> None:
    for k, wnid in enumerate(imagenet_wnids()):
        place(root / wnid / f"sketch_{k}.JPEG", k)


def high_resolution(root: Path) -> None:
    lines = ["file_name,label"]
    for k in range(1000):
        place(root / f"{k}.jpg", k)
        lines.append(f"{k}.jpg,{k}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")


def parquet(root: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet
    from timm.data.imagenet_info import ImageNetInfo

    names = [ImageNetInfo().label_name_to_description(wnid) for wnid in imagenet_wnids()]
    kind = {"names": names, "_type": "ClassLabel"}
    images = [{"bytes": jpeg(seed=k), "path": f"{k}.jpg"} for k in range(40)]
    table = pa.table({"image": images, "label": [25 * k for k in range(40)]})
    told = json.dumps({"info": {"features": {"label": kind}}})
    (root / "data").mkdir(parents=True)
    shard = root / "data" / "validation-00000-of-00001.parquet"
    parquet.write_table(table.replace_schema_metadata({"huggingface": told}), shard)


@pytest.mark.parametrize(
    ("data", "make", "classes", "n"),
    [
        ("imagenet_v2", v2, 1000, 1000),
        ("imagenet_a", some_classes, 199, 199),
        ("imagenet_r", some_classes, 199, 199),
        ("imagenet_sketch", sketch, 1000, 1000),
        ("imagenet_hr", high_resolution, 1000, 1000),
        ("imagenet", parquet, 1000, 40),
    ],
)
def test_accuracy_is_of_the_classes_by_name(tmp_path, monkeypatch, weights, data, make, classes, n):
    make(tmp_path / "src")
    out = str(tmp_path / "data" / data)
    semabench(["data", "render", str(tmp_path / "src"), out, "--resolution", "32"])
    words = ("model=sema_nano", f"model.checkpoint={weights}", f"data={data}", "resolutions=[32]")
    words = (*words, "logger=csv", "accelerator=cpu")
    assert run_here("eval.py", *words, cwd=tmp_path, patch=monkeypatch) == 0
    (row,) = read_rows(tmp_path / "outputs/eval/sema_nano/results.jsonl")
    assert (row.dataset, row.classes, row.n) == (data, classes, n)
    assert row.logits == ("own" if classes < 1000 else "")
    expected = 0
    config = DataConfig(data, out)
    loader = create_eval_loader(config, 32, batch_size=50)
    model = build_model(
        "sema_nano", num_classes=1000, resolution=32, options={}, checkpoint=weights
    )
    normalize = Normalize(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    wnids = {wnid: k for k, wnid in enumerate(imagenet_wnids())}
    named = wnids_of(loader.classes)
    columns = torch.tensor([int(c) if c.isdigit() else wnids[c] for c in named])
    with torch.no_grad():
        for images, labels in loader:
            logits = model.eval()(normalize(images))[:, columns]
            expected += int((logits.argmax(1) == labels).sum())
    assert row.top1 == pytest.approx(100 * expected / n)


def test_reals_labels_are_of_the_same_images(tmp_path, monkeypatch, capfd, weights):
    write_ilsvrc(tmp_path / "tars", tmp_path / "tree")
    out = str(tmp_path / "data/imagenet")
    semabench(["data", "render", str(tmp_path / "tars"), out, "--resolution", "32"])
    words = ("model=sema_nano", f"model.checkpoint={weights}", "data=imagenet", "resolutions=[32]")
    words = (*words, "logger=csv", "accelerator=cpu", "labels=real")
    assert run_here("eval.py", *words, cwd=tmp_path, patch=monkeypatch) == 0
    assert run_here("eval.py", *words, cwd=tmp_path, patch=monkeypatch) == 0
    assert capfd.readouterr().out.count("measured before") == 1
    (row,) = read_rows(tmp_path / "outputs/eval/sema_nano/results.jsonl")
    names = [f"ILSVRC2012_val_{k:08d}.JPEG" for k in range(1, 7)]
    assert (row.labels, row.logits) == ("real", "")
    assert row.n == int(real_labels(names, "d").any(dim=1).sum())

    sidecar = Path(out, "val-32.beton.json")  # of a version that kept no names
    told = json.loads(sidecar.read_text())
    del told["paths"]
    sidecar.write_text(json.dumps(told))
    assert run_here("eval.py", *words, "redo=true", cwd=tmp_path, patch=monkeypatch) == 2
    assert "render it again with --overwrite" in capfd.readouterr().err


def test_corrupted_images_are_read_as_they_are_distributed(tmp_path, monkeypatch, capfd, weights):
    root = tmp_path / "data/imagenet_c"
    for severity in (1, 2, 3, 4, 5):
        for k, wnid in enumerate(WNIDS):
            place(root / f"weather/fog/{severity}" / wnid / "a.JPEG", 10 * severity + k)
    words = ("measure=corruption", "data=imagenet_c", "resolutions=[32]", "corruptions=[fog]")
    words = (*words, "model=sema_nano", f"model.checkpoint={weights}", "accelerator=cpu")
    words = (*words, "data.num_workers=1")
    assert run_here("eval.py", *words, cwd=tmp_path, patch=monkeypatch) == 0
    assert "Error under corruption, of AlexNet's (%)" in capfd.readouterr().out
    path = tmp_path / "outputs/corruption/sema_nano/results.jsonl"
    rows = read_rows(path)
    assert [(row.corruption, row.severity, row.n) for row in rows] == [
        ("fog", severity, 3) for severity in (1, 2, 3, 4, 5)
    ]
    assert run_here("eval.py", *words, cwd=tmp_path, patch=monkeypatch) == 0
    assert capfd.readouterr().out.count("measured before") == 5
    assert (path.parent / "report" / "corruption.csv").exists()
    shutil.rmtree(root / "weather/fog/3")
    assert run_here("eval.py", *words, cwd=tmp_path, patch=monkeypatch) == 2
    assert "no fog/3 in data/imagenet_c" in capfd.readouterr().err
    assert run_here("eval.py", *words, "data.loader=ffcv", cwd=tmp_path, patch=monkeypatch) == 2
    assert "set data.loader=folder" in capfd.readouterr().err
