"""Official checkpoints: key names, wrappings, and what is said of files that do not fit."""

import json
import pickle
import sys
import types
from collections import OrderedDict

import pytest
import timm
import torch
from safetensors.torch import save_file

import semabench.models  # noqa: F401  registers the names
from semabench.errors import SemabenchError
from semabench.models.checkpoint import load_checkpoint
from semabench.models.mila import from_official

OFFICIAL_NANO = "mila_nano"


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    return timm.create_model(OFFICIAL_NANO, num_classes=10)


@pytest.fixture(scope="module")
def official(ours):
    """The same weights as the official code would have written them."""
    state = OrderedDict()
    for key, value in ours.state_dict().items():
        parts = key.replace("head.fc.", "head.").replace(".mixer.", ".attn.").split(".")
        if parts[0] == "stages" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        parts[0] = {"stages": "layers", "stem": "patch_embed"}.get(parts[0], parts[0])
        state[".".join(parts)] = value.clone()
    state["layers.0.blocks.0.attn.rope.rotations"] = torch.zeros(56, 56, 8, 2)
    return state


def load(path, name=OFFICIAL_NANO, **kwargs):
    torch.manual_seed(1)
    model = timm.create_model(name, **{"num_classes": 10, **kwargs})
    load_checkpoint(model, path, name)
    return model


def same(model, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("size", ["t", "s", "b"])
def test_official_keys_map_one_to_one(golden_dir, size):
    keys = json.loads((golden_dir / f"full_mlla_{size}.json").read_text())["state_dict"]
    official = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    name = {"t": "mila_tiny", "s": "mila_small", "b": "mila_base"}[size]
    with torch.device("meta"):
        ours = timm.create_model(name).state_dict()
    renamed = from_official(official)
    tables = [key for key in official if key.endswith("rope.rotations")]
    assert len(renamed) == len(official) - len(tables)  # no two keys fell together
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {k: v + 1 for k, v in s.items()}, "model_ema": s},
        lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}},
    ],
)
def test_official_checkpoints_load(tmp_path, ours, official, wrap):
    path = tmp_path / "official.pth"
    torch.save(wrap(official), path)
    assert same(load(path), ours)


def test_of_plain_and_averaged_weights_those_are_taken_that_were_asked_for(
    tmp_path, ours, official
):
    """MILA reports its averaged ones."""
    path = tmp_path / "both.pth"
    torch.save({"model": {k: v + 1 for k, v in official.items()}, "model_ema": official}, path)
    for weights, found, shift in (("auto", "ema", 0), ("ema", "ema", 0), ("model", "model", 1)):
        model = timm.create_model(OFFICIAL_NANO, num_classes=10)
        assert load_checkpoint(model, path, OFFICIAL_NANO, weights).which == found
        bias = model.head.fc.bias
        assert torch.equal(bias, ours.head.fc.bias + shift)
    torch.save({"model": official, "model_ema": {}}, path)
    assert load_checkpoint(model, path, OFFICIAL_NANO).which == "model"
    torch.save({"model": official}, path)
    with pytest.raises(SemabenchError, match="has no averaged weights: use weights=model"):
        load_checkpoint(model, path, OFFICIAL_NANO, "ema")
    torch.save({"model_ema": official}, path)
    with pytest.raises(SemabenchError, match="has no plain weights: use weights=ema"):
        load_checkpoint(model, path, OFFICIAL_NANO, "model")
    assert load_checkpoint(model, path, OFFICIAL_NANO).which == "ema"


def test_our_own_files_load(tmp_path, ours):
    save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    assert same(load(tmp_path / "ours.safetensors"), ours)
    state = {f"model.{k}": torch.zeros_like(v) for k, v in ours.state_dict().items()}
    state |= {f"ema.module.{k}": v for k, v in ours.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "run.ckpt")
    assert same(load(tmp_path / "run.ckpt"), ours)


def test_foreign_classes_in_a_checkpoint_stay_inert(tmp_path, ours, official, monkeypatch):
    """Swin's lineage pickles its config; code in a pickle must not run either."""
    module = types.ModuleType("yacs_of_the_author")
    exec(
        "class Config(dict):\n"
        "    pass\n"
        "class Bomb:\n"
        "    def __reduce__(self):\n"
        "        return (open, ('PATH', 'w'))\n".replace("PATH", str(tmp_path / "bomb")),
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, "yacs_of_the_author", module)
    config = module.Config(MODEL={"TYPE": "mlla"})
    config.frozen = True
    path = tmp_path / "with_config.pth"
    torch.save({"config": config, "bomb": module.Bomb(), "model": official}, path)
    monkeypatch.delitem(sys.modules, "yacs_of_the_author")
    assert same(load(path), ours)
    assert not (tmp_path / "bomb").exists()


def cut(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        (lambda s: s, {"num_classes": 7}, "is for 10 classes, the model for 7"),
        (lambda s: cut(s, "norm.bias"), {}, r"lacks norm\.bias \(1 of"),
        (lambda s: {**s, "extra": torch.zeros(1)}, {}, r"has unknown extra \(1 of"),
        (lambda s: s, {"mixer": "sema"}, r"lacks stages\.0\.blocks\.0\.mixer\.qkv\.bias"),
        (lambda s: {**s, "norm.bias": torch.zeros(3)}, {}, r"norm\.bias has the shape \(3,\)"),
        (lambda s: {"epoch": 3}, {}, "holds no weights"),
        (lambda s: [1, 2], {}, "holds no weights"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, official, change, kwargs, message):
    path = tmp_path / "wrong.pth"
    torch.save(change(official), path)
    with pytest.raises(SemabenchError, match=message) as error:
        load(path, **kwargs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_damaged_files(tmp_path, official, name):
    path = tmp_path / name
    with pytest.raises(SemabenchError, match="There is no checkpoint"):
        load(path)
    for content in (b"", b"no weights at all", pickle.dumps(3)[:-1]):
        path.write_bytes(content)
        with pytest.raises(SemabenchError, match="is damaged"):
            load(path)
    torch.save(official, tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SemabenchError, match="is damaged"):
        load(tmp_path / "cut.pth")
