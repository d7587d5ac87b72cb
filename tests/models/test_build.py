"""Any model by name, at any resolution, and one line for every mistake."""

import time

import pytest
import torch
from torch import nn

from semabench.errors import SemabenchError
from semabench.models import (
    backend_name,
    build_model,
    mixer_name,
    model_names,
    set_resolution,
    set_window_size,
)
from semabench.models.resolution import try_size

TINY_SWIN = {"embed_dim": 24, "depths": (1, 1), "num_heads": (1, 2)}
TINY_VIT = {"embed_dim": 24, "depth": 1, "num_heads": 1}


def build(name, resolution=64, **kwargs):
    return build_model(
        name, **{"num_classes": 10, "resolution": resolution, "options": {}, **kwargs}
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sema_nano", {}),
        ("vmamba_nano", {}),
        ("vim_nano", {"depth": 2}),
        ("resnet18", {}),
        ("swin_tiny_patch4_window7_224", TINY_SWIN),
        ("deit_small_patch16_224", TINY_VIT),
    ],
)
def test_any_model_at_two_resolutions(name, options):
    model = build(name, 96, options=options).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 96, 96)).shape == (1, 10)
        set_resolution(model, 160)
        assert model(torch.randn(1, 3, 160, 160)).shape == (1, 10)


def with_tables(name, options):
    torch.manual_seed(0)
    model = build(name, 128, options=options).eval()
    tables = [p for n, p in model.named_parameters() if "bias_table" in n or "pos_embed" in n]
    assert tables
    for table in tables:
        torch.nn.init.normal_(table)
    return model


@pytest.mark.parametrize(
    ("name", "options"),
    [("swin_tiny_patch4_window7_224", TINY_SWIN), ("deit_small_patch16_224", TINY_VIT)],
)
@torch.no_grad()
def test_the_way_to_a_resolution_makes_no_difference(name, options):
    model, x = with_tables(name, options), torch.randn(1, 3, 192, 192)
    as_built = model(x[..., :128, :128])
    set_resolution(model, 192)
    straight = model(x)
    for resolution in (64, 96, 192):
        set_resolution(model, resolution)
    assert torch.equal(model(x), straight)
    set_resolution(model, 128)
    assert torch.equal(model(x[..., :128, :128]), as_built)


@torch.no_grad()
def test_weights_that_were_trained_since_are_resampled_not_the_old_ones():
    model = with_tables("deit_small_patch16_224", TINY_VIT)
    set_resolution(model, 64)
    model.pos_embed.fill_(3.0)
    set_resolution(model, 96)
    torch.testing.assert_close(model.pos_embed[:, 1:], torch.full_like(model.pos_embed, 3.0)[:, 1:])


def test_swins_windows_do_not_grow_with_the_picture():
    model = build("swin_tiny_patch4_window7_224", 224, options=TINY_SWIN)
    blocks = [block for stage in model.layers for block in stage.blocks]
    for resolution in (96, 512):  # at 96 px the last stage has 3 × 3 tokens
        set_resolution(model, resolution)
        assert blocks[0].window_size == (7, 7)
        built = build("swin_tiny_patch4_window7_224", resolution, options=TINY_SWIN)
        same = [block.window_size for stage in built.layers for block in stage.blocks]
        assert [block.window_size for block in blocks] == same


def test_a_model_of_one_size_says_so():
    model = build("mixer_s32_224", 64)
    set_resolution(model, 64)
    with pytest.raises(SemabenchError, match="mixer_s32_224 cannot be run at 96 px"):
        set_resolution(model, 96)


def test_arguments_reach_the_model():
    model = build(
        "sema_tiny",
        in_chans=1,
        drop_path_rate=0.05,
        options={"window_size": 4, "lepe": False, "num_heads": [1, 2, 4, 8], "rope": None},
    )
    assert model.stem.conv1.conv.in_channels == 1
    block = model.stages[3].blocks[-1]
    assert block.drop_path1.drop_prob == pytest.approx(0.05)
    assert (block.mixer.window_size, block.mixer.lepe) == ((4, 4), None)
    assert block.mixer.num_heads == 8
    assert model.head.fc.out_features == 10
    assert build("sema_nano", num_classes=None).num_classes == 1000


def test_names_for_result_rows():
    assert mixer_name(build("sema_nano")) == "sema"
    assert mixer_name(build("sema_nano", mixer="softmax")) == "softmax"
    assert mixer_name(build("resnet18")) is None
    assert backend_name(build("sema_nano")) == "sdpa"
    assert backend_name(build("mila_nano"), torch.device("cpu")) == "kv"
    assert backend_name(build("sema_nano", options={"backend": "reference"})) == "reference"
    assert backend_name(build("sema_nano", mixer="mean")) == "torch"
    assert backend_name(build("resnet18")) == "torch"
    assert mixer_name(build("vmamba_nano")) == "ssm"
    for name in ("vmamba_nano", "vim_nano"):
        assert backend_name(build(name, options={"backend": "reference"})) == "reference"
    assert {"sema_tiny", "vim_base", "vmamba_tiny_s1l8"} <= set(model_names())


def test_vims_positions_are_those_of_the_resolution():
    assert build("vim_nano", 64).pos_embed.shape[1] == 8 * 8 + 1
    assert build("vim_nano", 64, options={"img_size": (32, 16)}).grid_size == (4, 2)


def test_window_size_of_a_built_model():
    torch.manual_seed(0)
    model = build("sema_nano").eval()
    torch.manual_seed(0)
    other = build("sema_nano", options={"window_size": 3}).eval()
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(model(x), other(x))
    set_window_size(model, 3)
    assert torch.equal(model(x), other(x))
    with pytest.raises(SemabenchError, match=r"no windows .*mila"):
        set_window_size(build("mila_nano"), 3)
    with pytest.raises(SemabenchError, match=r"no windows .*ResNet"):
        set_window_size(build("resnet18"), 3)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("sema_tyni", {}, "No model is named 'sema_tyni'. Did you mean 'sema_tiny'"),
        ("resnet81", {}, "Did you mean 'resnet"),
        ("swin_tiny", {}, "Did you mean 'swin_tiny_patch4_window7_224'"),
        ("deit_small", {}, "Did you mean 'deit_small_patch16_224'"),
        ("???", {}, "Choose one of sema_nano"),
        ("sema_nano", {"mixer": "softmaks"}, "Did you mean 'softmax'"),
        ("resnet18", {"mixer": "sema"}, "resnet18 has no exchangeable mixer"),
        ("vmamba_nano", {"mixer": "sema"}, "vmamba_nano has no exchangeable mixer"),
        ("vim_nano", {"options": {"d_stat": 4}}, "vim_nano has no option 'd_stat'"),
        ("vim_nano", {"options": {"backend": "cudda"}}, "no backend 'cudda'"),
        ("vim_tiny", {"pretrained": True}, "for an official Vim checkpoint"),
        ("sema_nano", {"options": {"widow_size": 7}}, "Did you mean 'window_size'"),
        ("sema_nano", {"options": {"drop_rat": 0.1}}, "Did you mean 'drop_rate'"),
        ("mila_nano", {"options": {"window_size": 7}}, "Mixers with it: sema, window"),
        ("sema_nano", {"options": {"num_heads": (1, 2)}}, "each of the 4 stages"),
        ("sema_nano", {"options": {"num_heads": (3, 2, 4, 8)}}, "num_heads=3 does not divide"),
        ("resnet18", {"options": {"widow_size": 7}}, "resnet18 has no option 'widow_size'"),
        ("vgg11", {"drop_path_rate": 0.1}, "vgg11 has no option 'drop_path_rate'"),
        ("sema_nano", {"pretrained": True}, "No pretrained weights"),
        ("sema_nano", {"checkpoint": "none.pth"}, "There is no checkpoint none.pth"),
    ],
)
def test_one_line_for_every_mistake(name, kwargs, message):
    with pytest.raises(SemabenchError, match=message) as error:
        build(name, **kwargs)
    assert "\n" not in str(error.value)


def test_weights_of_a_checkpoint(tmp_path):
    model = build("sema_nano")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    torch.manual_seed(9)
    again = build("sema_nano", checkpoint=tmp_path / "weights.pth")
    assert torch.equal(again.head.fc.weight, model.head.fc.weight)
    with pytest.raises(SemabenchError, match="is not one of resnet18"):
        build("resnet18", checkpoint=tmp_path / "weights.pth")


def test_fused_attention_is_an_option_of_timms_models_and_changes_no_number():
    name, options = "swin_tiny_patch4_window7_224", TINY_SWIN
    unfused = build(name, 56, options=options, fused_attention=False).eval()
    fused = build(name, 56, options=options, fused_attention=True).eval()
    fused.load_state_dict(unfused.state_dict())
    assert (backend_name(unfused), backend_name(fused)) == ("unfused", "sdpa")
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(fused(images), unfused(images), rtol=1e-5, atol=1e-5)
    with pytest.raises(SemabenchError, match="resnet18 has no attention"):
        build("resnet18", fused_attention=True)


@pytest.mark.parametrize("option", ["num_classes", "in_chans", "features_only", "pretrained"])
def test_what_something_else_decides_is_no_option(option):
    with pytest.raises(SemabenchError, match=f"option '{option}' of resnet18 is not for here"):
        build_model("resnet18", num_classes=3, resolution=64, options={option: 2})


@pytest.mark.parametrize(
    ("name", "pixels", "batch", "options", "message"),
    [
        ("resnet18", 32, 1, {}, "1 image.*more than 1 value"),
        ("sema_nano", 32, 1, {}, "1 image.*more than 1 value"),
        ("resnet18", 64, 2, {"global_pool": ""}, "cannot be trained at 64 px"),
        ("crossvit_tiny_240", 64, 2, {}, "cannot be trained at 64 px"),
    ],
)
def test_what_a_model_cannot_take_is_known_before_a_run(name, pixels, batch, options, message):
    model = build_model(name, num_classes=9, resolution=pixels, options=options)
    with pytest.raises(SemabenchError, match=message):
        try_size(model, pixels, batch, 9, train=True)


class InPlace(nn.Module):
    """Changes what its backward pass needs, which its forward pass does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.head(x.mean((2, 3))).sigmoid()
        return weights.mul_(2.0)


def test_what_fails_backwards_is_known_before_a_run():
    try_size(InPlace(), 64, 2, 9, train=False)
    with pytest.raises(SemabenchError, match=r"InPlace cannot be trained at 64 px.*inplace"):
        try_size(InPlace(), 64, 2, 9, train=True)


@pytest.mark.parametrize("name", ["resnet18", "sema_nano", "vit_tiny_patch16_224"])
def test_trying_a_size_leaves_a_model_as_it_is(name):
    model = build_model(name, num_classes=9, resolution=64, options={})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try_size(model, 64, 2, 9, train=True)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_without_a_network_the_hub_is_not_waited_for(monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(SemabenchError, match="Weights come from the network, or from"):
        build_model("resnet18", num_classes=9, resolution=64, pretrained=True, options={})
    assert time.monotonic() - began < 10
    assert "cached in" in " ".join(capsys.readouterr().err.split())
    assert constants.HF_HUB_OFFLINE is False  # for the next model, the network may be back
