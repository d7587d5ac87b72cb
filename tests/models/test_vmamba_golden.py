"""The official VMamba code's outputs, activations and gradients."""

import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import semabench.models  # noqa: F401  registers the names
from semabench.models.vmamba_checkpoint import from_official, our_key

FILES = ["tiny_s1_64", "tiny_s1_72x56", "tiny_s2_64"]
WEIGHTS = {"tiny_s1_72x56": "tiny_s1_64"}  # a file that holds none of its own
PARAMETERS = {"tiny_s1_64": 384_074, "tiny_s1_72x56": 384_074, "tiny_s2_64": 458_138}


@pytest.fixture(scope="module")
def golden(golden_dir):
    """Return (model of ours with the official weights, fixture of a file)."""

    def load(file, dtype):
        fixture = load_file(golden_dir / f"vmamba/{file}.safetensors")
        path = golden_dir / f"vmamba/{WEIGHTS.get(file, file)}.safetensors"
        weights = {k: v for k, v in load_file(path).items() if "/" not in k and k not in "xy"}
        with safe_open(path, "pt") as opened:
            config = json.loads(opened.metadata()["config"])
        model = timm.create_model(
            "vmamba_nano",
            num_classes=config["num_classes"],
            embed_dim=config["dims"],
            depths=config["depths"],
            ssm_ratio=config["ssm_ratio"],
            d_state=config["ssm_d_state"],
            mlp_ratio=config["mlp_ratio"],
            drop_path_rate=config["drop_path_rate"],
        )
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[file]
        model.load_state_dict(from_official(weights))
        return model.to(dtype).eval(), {k: v.to(dtype) for k, v in fixture.items()}

    return load


def close(ours, official, relative):
    limit = relative * official.abs().max().item()
    torch.testing.assert_close(ours, official, rtol=0, atol=limit)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 2e-6)])
def test_official_outputs(golden, file, dtype, tolerance):
    model, fixture = golden(file, dtype)
    with torch.no_grad():
        torch.testing.assert_close(model(fixture["x"]), fixture["y"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("file", FILES)
def test_official_activations(golden, file):
    model, fixture = golden(file, torch.float32)
    official = {
        "stem": "patch_embed",
        "stages.0.blocks.0": "layers.0.blocks.0",
        "stages.0.blocks.0.op": "layers.0.blocks.0.op",
        "stages.1.downsample": "layers.0",
        "stages.1.blocks.0": "layers.1.blocks.0",
        "stages.2.downsample": "layers.1",
        "stages.2.blocks.0": "layers.2.blocks.0",
        "stages.2.blocks.1": "layers.2.blocks.1",
        "stages.3.downsample": "layers.2",
        "stages.3.blocks.0": "layers.3.blocks.0",
        "stages.3": "layers.3",
        "norm": "classifier.norm",
    }
    seen = {}
    for name, theirs in official.items():
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, theirs=theirs: seen.__setitem__(
                f"act/{theirs}", output.permute(0, 3, 1, 2)
            )
        )
    with torch.no_grad():
        features = model.forward_features(fixture["x"])
        seen["act/pooled"] = model.forward_head(features, pre_logits=True)
    assert seen.keys() == {k for k in fixture if k.startswith("act/")}
    for key, value in seen.items():
        close(value, fixture[key], 1e-5)


@pytest.mark.parametrize("file", FILES)
def test_official_gradients(golden, file):
    model, fixture = golden(file, torch.float32)
    x = fixture["x"].requires_grad_()
    model(x).square().sum().backward()
    close(x.grad, fixture["grad/x"], 1e-5)
    parameters = dict(model.named_parameters())
    keys = [k.removeprefix("grad/") for k in fixture if k.startswith("grad/") and k != "grad/x"]
    assert len(keys) == 3
    for key in keys:
        close(parameters[our_key(key)].grad, fixture[f"grad/{key}"], 1e-5)
