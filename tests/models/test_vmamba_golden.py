"""The official VMamba code's outputs, activations and gradients."""

import pytest
import timm
import torch

import semabench.models  # noqa: F401  registers the names
from helpers.golden import assert_official_gradients, close, in_type, read_golden
from semabench.models.vmamba import from_official, our_key

FILES = ["tiny_s1_64", "tiny_s1_72x56", "tiny_s2_64"]
WEIGHTS = {"tiny_s1_72x56": "tiny_s1_64"}  # a file that holds none of its own
PARAMETERS = {"tiny_s1_64": 99_722, "tiny_s1_72x56": 99_722, "tiny_s2_64": 120_626}


@pytest.fixture(scope="module")
def golden(golden_dir):
    """Return (model of ours with the official weights, fixture of a file)."""

    def load(file, dtype):
        weights_file = WEIGHTS.get(file, file)
        config, weights, _ = read_golden(golden_dir / f"vmamba/{weights_file}.safetensors")
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
        return in_type(model, read_golden(golden_dir / f"vmamba/{file}.safetensors").tensors, dtype)

    return load


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
    assert_official_gradients(model, fixture, our_key)
