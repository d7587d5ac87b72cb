"""The official Vim code's outputs, activations and gradients."""

import pytest
import timm
import torch

import semabench.models  # noqa: F401  registers the names
from helpers.golden import assert_official_gradients, close, in_type, read_golden


@pytest.fixture
def golden(golden_dir):
    """Return (model of ours with the official weights, fixture)."""

    def load(dtype):
        config, weights, tensors = read_golden(golden_dir / "vim/tiny_64.safetensors")
        model = timm.create_model(
            "vim_nano",
            **{
                key: config[key]
                for key in (
                    "num_classes",
                    "img_size",
                    "patch_size",
                    "stride",
                    "embed_dim",
                    "depth",
                    "d_state",
                    "drop_path_rate",
                )
            },
        )
        assert sum(p.numel() for p in model.parameters()) == 80_458
        model.load_state_dict(weights)
        return in_type(model, tensors, dtype)

    return load


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 2e-6)])
def test_official_outputs(golden, dtype, tolerance):
    model, fixture = golden(dtype)
    with torch.no_grad():
        torch.testing.assert_close(model(fixture["x"]), fixture["y"], rtol=0, atol=tolerance)


def test_official_activations(golden):
    model, fixture = golden(torch.float32)
    seen = {}

    def see(key, output):
        seen[f"act/{key}"] = output

    model.patch_embed.register_forward_hook(
        lambda _module, _inputs, output: see("patch_embed", output.flatten(2).transpose(1, 2))
    )
    for i, layer in enumerate(model.layers):
        layer.register_forward_hook(
            lambda _module, inputs, _output, i=i: see(f"layers.{i}.residual", inputs[0])
        )
        layer.mixer.register_forward_hook(
            lambda _module, _inputs, output, i=i: see(f"layers.{i}.hidden_states", output)
        )
    with torch.no_grad():
        tokens = model.forward_features(fixture["x"])
        see("pooled", model.forward_head(tokens, pre_logits=True))
    see("norm_f", tokens)
    see("tokens", seen["act/layers.0.residual"])
    assert seen.keys() == {k for k in fixture if k.startswith("act/")}
    for key, value in seen.items():
        close(value, fixture[key], 1e-5)


def test_official_gradients(golden):
    model, fixture = golden(torch.float32)
    assert_official_gradients(model, fixture)
