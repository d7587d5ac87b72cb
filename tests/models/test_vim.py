"""Vim: any size, its class token and positions, drop rates, initialisation, timm's habits."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import group_parameters

import semabench.models  # noqa: F401  registers the names
from helpers.habits import assert_checkpointing_changes_nothing
from helpers.on_gpu import assert_gpu_agrees_with_cpu
from semabench.errors import SemabenchError
from semabench.models.vim import insert_middle, resample_positions, split_middle


def nano(**kwargs):
    torch.manual_seed(0)
    return timm.create_model("vim_nano", **{"img_size": 32, "num_classes": 5, "depth": 2, **kwargs})


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (7, 50), (1, 1)])
@pytest.mark.parametrize("stride", [None, 3])
def test_any_size(size, stride):
    model = nano(stride=stride).eval()
    x = torch.randn(2, 3, *size, requires_grad=True)
    y = model(x)
    assert y.shape == (2, 5)
    y.square().sum().backward()
    assert (x.grad.abs().sum((0, 1)) > 0).all()  # no pixel is left out


def test_padding_is_zeros_on_the_right_and_at_the_bottom():
    model = nano().eval()
    x = torch.randn(1, 3, 30, 41)
    torch.testing.assert_close(model(x), model(F.pad(x, (0, 7, 0, 2))))


def test_overlapping_patches():
    model = timm.create_model("vim_tiny_plus", depth=1, embed_dim=32)
    assert model.grid_size == (27, 27)
    assert model.patch_embed(torch.zeros(1, 3, 224, 224)).shape == (1, 32, 27, 27)


def test_the_class_token_stands_in_the_middle():
    patches = torch.arange(5.0).view(1, 5, 1)
    tokens = insert_middle(patches, torch.full((1, 1, 1), -1.0))
    assert tokens.flatten().tolist() == [0, 1, -1, 2, 3, 4]
    back, token = split_middle(tokens)
    assert torch.equal(back, patches)
    assert token.item() == -1


def test_positions_keep_their_place_at_another_size():
    """A table that is linear in row and column stays so; the class token's row is not touched."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    table = insert_middle(
        torch.stack((rows, columns), -1).view(1, 64, 2), torch.full((1, 1, 2), 99)
    )
    assert resample_positions(table, (8, 8), (8, 8)) is table
    larger, token = split_middle(resample_positions(table, (8, 8), (16, 24)))
    assert token.flatten().tolist() == [99, 99]
    larger = larger.view(16, 24, 2)[4:-4, 6:-6]  # away from the edges
    expected = torch.stack(
        torch.meshgrid(
            (torch.arange(16) + 0.5) / 2 - 0.5, (torch.arange(24) + 0.5) / 3 - 0.5, indexing="ij"
        ),
        -1,
    )[4:-4, 6:-6]
    torch.testing.assert_close(larger, expected, rtol=0, atol=0.05)


def test_another_size_is_a_model_built_for_it():
    model, large = nano().eval(), nano(img_size=(48, 40)).eval()
    state = model.state_dict()
    state["pos_embed"] = resample_positions(state["pos_embed"], (4, 4), (6, 5))
    large.load_state_dict(state)
    x = torch.randn(2, 3, 48, 40)
    torch.testing.assert_close(model(x), large(x))


def test_a_transposed_grid_is_interpolated_too():
    """As many patches, but not the same ones."""
    model = nano(img_size=(16, 32))
    torch.nn.init.normal_(model.pos_embed)
    x = torch.zeros(1, 3, 32, 16)
    patches = split_middle(model.embed(x))[0]
    resampled = split_middle(resample_positions(model.pos_embed, (2, 4), (4, 2)))[0]
    torch.testing.assert_close(patches, resampled + model.patch_embed.proj.bias)


def test_drop_path_grows_linearly_from_zero_and_the_last_output_is_dropped_in_full():
    model = timm.create_model("vim_nano", depth=5, drop_path_rate=0.4)
    rates = [getattr(layer.drop_path, "drop_prob", 0.0) for layer in model.layers]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_initialisation():
    model = timm.create_model("vim_nano", embed_dim=192, depth=4, d_state=16)
    for layer in model.layers:
        mixer = layer.mixer
        step = F.softplus(mixer.dt_proj.bias)
        assert 1e-3 <= step.min() < 2e-3
        assert 0.05 < step.max() <= 0.1001
        assert mixer.dt_proj_b.bias.abs().max() == 0  # as the official code leaves it
        for weight in (mixer.dt_proj.weight, mixer.dt_proj_b.weight):
            assert 0.9 * 12**-0.5 < weight.abs().max() <= 12**-0.5
        bound = (384 * 4) ** -0.5  # torch's, divided by sqrt(depth)
        assert 0.9 * bound < mixer.out_proj.weight.abs().max() <= bound
        for logarithm in (mixer.A_log, mixer.A_b_log):
            torch.testing.assert_close(logarithm.exp(), torch.arange(1.0, 17).expand(384, 16))
    assert abs(model.pos_embed.std().item() - 0.02) < 2e-3
    assert abs(model.head.weight.std().item() - 0.02) < 2e-3
    assert abs(model.patch_embed.proj.weight.std().item() - (3 * 8 * 8) ** -0.5) < 5e-3
    assert model.patch_embed.proj.bias.abs().max() == 0


def test_no_weight_decay_and_layers():
    model = nano()
    spared = model.no_weight_decay()
    assert {"cls_token", "pos_embed", "layers.1.mixer.A_b_log", "layers.0.mixer.D"} <= spared
    assert len(spared) == 2 + 4 * 2
    names = {name for name, _ in model.named_parameters()}
    assert spared <= names
    groups = group_parameters(model, model.group_matcher())
    assert {name for group in groups.values() for name in group} == names


def test_head():
    model = nano(drop_rate=0.3).eval()
    tokens = model.forward_features(torch.randn(2, 3, 32, 32))
    assert tokens.shape == (2, 17, 96)
    pooled = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(pooled, tokens[:, 8])
    torch.testing.assert_close(model.forward_head(tokens), model.get_classifier()(pooled))
    assert model.head_drop.p == 0.3
    model.reset_classifier(3, "avg")
    assert model.forward_head(tokens).shape == (2, 3)
    mean = torch.cat((tokens[:, :8], tokens[:, 9:]), dim=1).mean(1)
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), mean)
    model.reset_classifier(0, "")
    assert model.forward_head(tokens).shape == tokens.shape
    with pytest.raises(SemabenchError, match="no global_pool 'max'"):
        model.reset_classifier(3, "max")


def test_default_cfg():
    model = nano()
    config = model.default_cfg
    assert config["fixed_input_size"] is False
    assert model.get_submodule(config["first_conv"]).weight.shape[1] == 3
    assert model.get_submodule(config["classifier"]) is model.get_classifier()


def test_gradient_checkpointing_changes_nothing():
    model = nano()
    assert_checkpointing_changes_nothing(model, [model])


def test_bfloat16_autocast_keeps_the_residual_stream_in_float32():
    model = nano().train()
    seen = []
    for layer in model.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(4, 3, 32, 32)).float().square().sum()
    loss.backward()
    assert seen == [torch.float32, torch.float32]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_compiles_whole():
    model = nano().eval()
    x = torch.randn(1, 3, 40, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    assert_gpu_agrees_with_cpu(nano().eval())
