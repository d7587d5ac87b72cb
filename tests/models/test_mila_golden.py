"""The official MILA code's outputs, activations and gradients."""

import pytest
import timm
import torch

import semabench.models  # noqa: F401  registers the names
from helpers.golden import assert_official_gradients, close, in_type, read_golden
from semabench.models.mila import from_official, our_key


@pytest.fixture(scope="module")
def golden(golden_dir):
    """Return (model of ours with the official weights, fixture of a size)."""

    def load(file, dtype):
        config, weights, _ = read_golden(golden_dir / "mlla/tiny_64.safetensors")
        model = timm.create_model(
            "mila_nano",
            num_classes=config["num_classes"],
            embed_dim=config["embed_dim"],
            depths=config["depths"],
            num_heads=config["num_heads"],
            drop_path_rate=config["drop_path_rate"],
        )
        assert sum(p.numel() for p in model.parameters()) == 132_446
        model.load_state_dict(from_official(weights))
        return in_type(model, read_golden(golden_dir / f"mlla/{file}.safetensors").tensors, dtype)

    return load


@pytest.mark.parametrize("file", ["tiny_64", "tiny_96"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 2e-6)])
def test_official_outputs(golden, file, dtype, tolerance):
    model, fixture = golden(file, dtype)
    torch.testing.assert_close(model(fixture["x"]), fixture["y"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("file", ["tiny_64", "tiny_96"])
def test_official_activations(golden, file):
    model, fixture = golden(file, torch.float32)
    seen = {}
    official = {
        "stem": "patch_embed",
        "stages.0.blocks.0": "layers.0.blocks.0",
        "stages.0.blocks.0.mixer": "layers.0.blocks.0.attn",
        "stages.1.downsample": "layers.0",
        "stages.1.blocks.0": "layers.1.blocks.0",
        "stages.2.downsample": "layers.1",
        "stages.2.blocks.0": "layers.2.blocks.0",
        "stages.2.blocks.1": "layers.2.blocks.1",
        "stages.3.downsample": "layers.2",
        "stages.3.blocks.0": "layers.3.blocks.0",
        "stages.3": "layers.3",
        "norm": "norm",
    }
    for name in official:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.__setitem__(name, output)
        )
    features = model.forward_features(fixture["x"])
    seen_all = {f"act/{official[name]}": y.flatten(1, 2) for name, y in seen.items()}
    seen_all["act/pooled"] = model.forward_head(features, pre_logits=True)
    assert seen_all.keys() == {k for k in fixture if k.startswith("act/")}
    for key, value in seen_all.items():
        close(value, fixture[key], 1e-5)


@pytest.mark.parametrize("file", ["tiny_64", "tiny_96"])
def test_official_gradients(golden, file):
    model, fixture = golden(file, torch.float32)
    assert_official_gradients(model, fixture, our_key)
