"""The macro-architecture: any mixer, any size, and the habits of a timm model."""

import pytest
import timm
import torch
from timm.models._manipulate import group_parameters

import semabench.models  # noqa: F401  registers the names
from helpers.habits import assert_checkpointing_changes_nothing
from helpers.on_gpu import assert_gpu_agrees_with_cpu
from semabench.errors import SemabenchError
from semabench.mixers import list_mixers


@pytest.mark.parametrize("mixer", list_mixers())
@pytest.mark.parametrize("size", [(32, 32), (33, 65), (7, 50), (1, 1)])
def test_any_mixer_at_any_size(mixer, size):
    model = timm.create_model("sema_nano", mixer=mixer, num_classes=5).eval()
    with torch.no_grad():
        y = model(torch.randn(2, 3, *size))
    assert y.shape == (2, 5)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("stem", ["mila", "patch"])
@pytest.mark.parametrize("positions", [False, True])
def test_stems_and_positions_take_any_size(stem, positions):
    torch.manual_seed(0)
    model = timm.create_model("sema_nano", num_classes=5, stem=stem, positions=positions).eval()
    for size, grid in (((32, 40), (8, 10)), ((33, 50), (9, 13)), ((1, 1), (1, 1))):
        x = torch.randn(2, 3, *size)
        assert model.embed(x).shape == (2, *grid, 16)
        assert model(x).shape == (2, 5)
    names = {name for name, _ in model.named_parameters() if "positions" in name}
    assert model.no_weight_decay() == names == ({"positions.table"} if positions else set())


def test_patches_do_not_overlap_and_positions_are_where_they_belong():
    torch.manual_seed(0)
    model = timm.create_model("sema_nano", stem="patch", positions=True).eval()
    x = torch.randn(1, 3, 224, 224)
    changed = x.clone()
    changed[..., 4:8, 8:12] += 1
    moved = (model.stem(changed) != model.stem(x)).any(-1)[0]
    assert moved.nonzero().tolist() == [[1, 2]]
    table = model.positions.table.view(1, 56, 56, 16)
    torch.testing.assert_close(model.embed(x) - model.stem(x), table, atol=1e-5, rtol=0)
    small = model.embed(x[..., :112, :112]) - model.stem(x[..., :112, :112])
    pooled = torch.nn.functional.avg_pool2d(table.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert torch.corrcoef(torch.stack([small.flatten(), pooled.flatten()]))[0, 1] > 0.9


def test_positions_have_a_models_habits():
    """Names of the stem stay; features have them; a file of any size holds the general way."""
    plain = timm.create_model("mila_nano")
    model = timm.create_model("mila_nano", positions=True).eval()
    assert model.state_dict().keys() - plain.state_dict().keys() == {"positions.table"}
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert layers["positions.table"] == layers["stem.conv1.conv.weight"] == 0
    features = timm.create_model("mila_nano", positions=True, features_only=True).eval()
    features.model.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(features(x)[0], model.forward_intermediates(x)[1][0])
    assert not torch.equal(features(x)[0], plain.eval().forward_intermediates(x)[1][0])
    linear = timm.create_model("linear_nano", positions=True, stem="patch").eval()
    sizes = ({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    exported = torch.export.export(linear, (torch.randn(1, 3, 64, 96),), dynamic_shapes=sizes)
    for side in (128, 224):
        x = torch.randn(1, 3, side, side)
        torch.testing.assert_close(exported.module()(x), linear(x), rtol=1e-3, atol=1e-4)


def test_an_unknown_stem_names_the_nearest():
    with pytest.raises(SemabenchError, match=r"no stem 'pach'.*patch"):
        timm.create_model("sema_nano", stem="pach")


def test_memory_format_does_not_matter():
    model = timm.create_model("sema_nano").eval()
    x = torch.randn(2, 3, 40, 48)
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    y = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)


def test_only_odd_blocks_shift():
    model = timm.create_model("sema_tiny", shift=True, depths=(3, 1, 2, 1))
    shifts = [[block.mixer.shift for block in stage.blocks] for stage in model.stages]
    assert shifts == [[False, True, False], [False], [False, True], [False]]
    plain = timm.create_model("sema_nano")
    assert not any(block.mixer.shift for stage in plain.stages for block in stage.blocks)


def test_gradient_checkpointing_changes_nothing():
    model = timm.create_model("sema_nano", num_classes=5)
    assert_checkpointing_changes_nothing(model, list(model.stages))


def test_features_only():
    model = timm.create_model("sema_nano", features_only=True)
    assert model.feature_info.channels() == [16, 32, 64, 128]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    maps = model(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (1, 16, 16, 24),
        (1, 32, 8, 12),
        (1, 64, 4, 6),
        (1, 128, 2, 3),
    ]
    two = timm.create_model("sema_nano", features_only=True, out_indices=(0, 2))
    assert [m.shape[1] for m in two(torch.randn(1, 3, 64, 64))] == [16, 64]
    assert not any(name.startswith("model.stages.3") for name, _ in two.named_parameters())


def test_forward_intermediates():
    model = timm.create_model("sema_nano").eval()
    x = torch.randn(2, 3, 64, 64)
    final, maps = model.forward_intermediates(x, norm=True, output_fmt="NHWC")
    torch.testing.assert_close(final, model.forward_features(x))
    torch.testing.assert_close(maps[-1], final)
    last = model.forward_intermediates(x, indices=1, intermediates_only=True)
    torch.testing.assert_close(last[0].movedim(1, -1), model.stages(model.stem(x)))
    early = model.forward_intermediates(x, [1], stop_early=True, intermediates_only=True)
    assert early[0].shape == (2, 32, 8, 8)
    with pytest.raises(SemabenchError, match="NCHW or NHWC"):
        model.forward_intermediates(x, output_fmt="NLC")


def test_head():
    model = timm.create_model("sema_nano", num_classes=7, drop_rate=0.3).eval()
    features = model.forward_features(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 2, 2, 128)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean(dim=(1, 2)))
    torch.testing.assert_close(model.forward_head(features), model.get_classifier()(pooled))
    model.reset_classifier(3)
    assert model.num_classes == 3
    assert model.forward_head(features).shape == (2, 3)
    model.reset_classifier(0, "")
    assert model.forward_head(features).shape == features.shape


def test_arguments_reach_the_model():
    model = timm.create_model(
        "sema_tiny", in_chans=1, num_classes=3, img_size=96, drop_path_rate=0.1, drop_rate=0.2
    ).eval()
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 3)
    blocks = [block for stage in model.stages for block in stage.blocks]
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.1, 18))
    assert model.head.drop.p == 0.2


def test_default_cfg():
    config = timm.create_model("sema_nano").default_cfg
    assert config["crop_pct"] == 0.875
    assert config["interpolation"] == "bicubic"
    assert config["mean"] == (0.485, 0.456, 0.406)
    assert config["fixed_input_size"] is False
    model = timm.create_model("sema_nano")
    assert model.get_submodule(config["first_conv"]).weight.shape[1] == 3
    assert model.get_submodule(config["classifier"]) is model.get_classifier()


def test_group_matcher_covers_every_parameter():
    from timm.models import group_parameters

    model = timm.create_model("sema_nano")
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse))
        assert sorted(n for names in groups.values() for n in names) == sorted(
            n for n, _ in model.named_parameters()
        )
    assert model.no_weight_decay() == set()


def test_initialisation_is_milas():
    torch.manual_seed(0)
    model = timm.create_model("sema_tiny")
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            assert abs(module.weight.std().item() - 0.02) < 2e-3
            assert module.bias.abs().max() == 0


@pytest.mark.parametrize("mixer", ["sema", "mila", "focused"])
def test_compiles_whole(mixer):
    model = timm.create_model("sema_nano", mixer=mixer, depths=(1, 1, 1, 1)).eval()
    x = torch.randn(1, 3, 40, 40)
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


def test_bfloat16_autocast_trains():
    model = timm.create_model("sema_nano", num_classes=5).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(4, 3, 72, 72)).float().square().sum()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", list_mixers())
def test_gpu_agrees_with_cpu(mixer):
    assert_gpu_agrees_with_cpu(timm.create_model("sema_nano", mixer=mixer, num_classes=5).eval())
