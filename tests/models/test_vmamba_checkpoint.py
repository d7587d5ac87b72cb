"""Official VMamba checkpoints: names and shapes of today and of before."""

import json

import pytest
import timm
import torch

import semabench.models  # noqa: F401  registers the names
from semabench.errors import SemabenchError
from semabench.models.checkpoint import load_checkpoint
from semabench.models.vmamba import from_official, our_key

OFFICIAL = {
    "vmamba_tiny_s1l8": "t_s1l8",
    "vmamba_tiny_s2l5": "t_s2l5",
    "vmamba_small_s2l15": "s_s2l15",
    "vmamba_small_s1l20": "s_s1l20",
    "vmamba_base_s2l15": "b_s2l15",
    "vmamba_base_s1l20": "b_s1l20",
}


def official_shapes(golden_dir, name):
    return json.loads((golden_dir / f"full_vmamba_{OFFICIAL[name]}.json").read_text())


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_keys_map_one_to_one(golden_dir, name):
    official = official_shapes(golden_dir, name)
    with torch.device("meta"):
        model = timm.create_model(name)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    renamed = {our_key(key): shape for key, shape in official["state_dict"].items()}
    assert renamed == ours
    assert len(renamed) == len(official["state_dict"])  # no two keys fell together
    assert sum(p.numel() for p in model.parameters()) == official["n_params"]
    kwargs = official["constructor_kwargs"]
    last = model.stages[-1].blocks[-1]
    assert last.drop_path1.drop_prob == pytest.approx(kwargs["drop_path_rate"])


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    return timm.create_model("vmamba_nano", num_classes=10)


def official(ours, *, old=False, convolutions=False):
    """The same weights as the official code would have written them."""
    names = {
        "stem.conv1.": "patch_embed.0.",
        "stem.norm1.": "patch_embed.2.",
        "stem.conv2.": "patch_embed.5.",
        "stem.norm2.": "patch_embed.7.",
        "downsample.conv.": "downsample.1.",
        "downsample.norm.": "downsample.3.",
        "op.mixer.": "op.",
        "stages.": "layers.",
    }
    if old:
        names |= {"stem.conv1.": "patch_embed.proj.", "stem.norm1.": "patch_embed.norm."}
    state = {}
    for key, value in ours.state_dict().items():
        parts = key.split(".")
        if parts[0] in ("norm", "head") and not old:
            parts = ["classifier", *parts]
        key = ".".join(parts).replace("head.fc.", "head.")
        if "downsample" in key:
            key = key.replace(f"stages.{parts[1]}", f"stages.{int(parts[1]) - 1}")
        for our_name, name in names.items():
            key = key.replace(our_name, name)
        if old and key.startswith("layers."):
            key = key.replace(".norm.", ".ln_1.") if "downsample" not in key else key
            key = key.replace(".op.", ".self_attention.")
        pointwise = key.endswith(("proj.weight", "fc1.weight", "fc2.weight")) and "layers" in key
        state[key] = value[:, :, None, None] if convolutions and pointwise else value
    return state


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("convolutions", [False, True])
def test_official_checkpoints_load(tmp_path, ours, old, convolutions):
    state = official(ours, old=old, convolutions=convolutions)
    assert ("norm.weight" in state) is old
    assert ("layers.0.blocks.0.self_attention.in_proj.weight" in state) is old
    assert any(value.ndim == 4 and value.shape[2:] == (1, 1) for value in state.values()) is (
        convolutions
    )
    torch.save({"model": state, "epoch": 264}, tmp_path / "official.pth")
    torch.manual_seed(1)
    model = timm.create_model("vmamba_nano", num_classes=10)
    load_checkpoint(model, tmp_path / "official.pth", "vmamba_nano")
    for key, value in ours.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_our_own_files_load(tmp_path, ours):
    assert from_official(ours.state_dict()).keys() == ours.state_dict().keys()
    torch.save(ours.state_dict(), tmp_path / "ours.pth")
    torch.manual_seed(1)
    model = timm.create_model("vmamba_nano", num_classes=10)
    load_checkpoint(model, tmp_path / "ours.pth", "vmamba_nano")
    assert torch.equal(model.head.fc.weight, ours.head.fc.weight)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("vmamba_nano", {"num_classes": 7}, "is for 10 classes, the model for 7"),
        ("vmamba_nano", {"ssm_ratio": 2.0}, r"has the shape \(16, 16\), not \(32, 16\)"),
        ("mila_nano", {}, "is not one of mila_nano: it lacks"),
        ("vim_nano", {}, "is not one of vim_nano: it lacks"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, ours, name, kwargs, message):
    torch.save(official(ours), tmp_path / "official.pth")
    model = timm.create_model(name, **{"num_classes": 10, **kwargs})
    with pytest.raises(SemabenchError, match=message) as error:
        load_checkpoint(model, tmp_path / "official.pth", name)
    assert "\n" not in str(error.value)
