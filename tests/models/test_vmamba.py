"""VMamba: any size, drop rates, initialisation, and the habits of a timm model."""

import statistics
import time

import pytest
import timm
import torch
from timm.models import group_parameters
from torch.nn.functional import cross_entropy

import semabench.models  # noqa: F401  registers the names
from helpers.habits import assert_checkpointing_changes_nothing
from helpers.on_gpu import assert_gpu_agrees_with_cpu
from semabench.errors import SemabenchError


def nano(**kwargs):
    torch.manual_seed(0)
    return timm.create_model("vmamba_nano", **{"num_classes": 5, **kwargs})


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (7, 50), (1, 1)])
def test_any_size(size):
    with torch.no_grad():
        y = nano().eval()(torch.randn(2, 3, *size))
    assert y.shape == (2, 5)
    assert torch.isfinite(y).all()


def test_arguments_reach_the_model():
    model = timm.create_model(
        "vmamba_nano", in_chans=1, num_classes=3, img_size=96, d_state=2, mlp_ratio=2, drop_rate=0.2
    ).eval()
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 3)
    block = model.stages[0].blocks[0]
    assert block.op.mixer.A_logs.shape == (4 * 16, 2)
    assert block.mlp.fc1.out_features == 32
    assert model.head.drop.p == 0.2


def test_both_branches_of_a_block_share_a_drop_path_rate_that_grows_linearly():
    model = timm.create_model("vmamba_nano", depths=(1, 1, 2, 2), drop_path_rate=0.5)
    blocks = [block for stage in model.stages for block in stage.blocks]
    for name in ("drop_path1", "drop_path2"):
        rates = [getattr(getattr(block, name), "drop_prob", 0.0) for block in blocks]
        assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_training_step_on_a_cpu_is_quick():
    """Batch 32, 64 px: 0.07 s on two idle cores. A busy machine may take 7 times as long."""
    model = nano()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, labels = torch.randn(32, 3, 64, 64), torch.randint(5, (32,))

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        return time.perf_counter() - start

    step()
    assert statistics.median(step() for _ in range(5)) < 0.5


def test_features_only():
    model = timm.create_model("vmamba_nano", features_only=True)
    assert model.feature_info.channels() == [16, 32, 64, 128]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    maps = model(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 16, 24),
        (32, 8, 12),
        (64, 4, 6),
        (128, 2, 3),
    ]


def test_head_and_default_cfg():
    model = nano().eval()
    features = model.forward_features(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 2, 2, 128)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean(dim=(1, 2)))
    torch.testing.assert_close(model.forward_head(features), model.get_classifier()(pooled))
    config = model.default_cfg
    assert model.get_submodule(config["first_conv"]).weight.shape[1] == 3
    assert model.get_submodule(config["classifier"]) is model.get_classifier()
    model.reset_classifier(3)
    assert model.forward_head(features).shape == (2, 3)


def test_initial_weights_are_the_published_ones():
    model = timm.create_model("vmamba_tiny_s1l8", depths=(1, 1, 1, 1), num_classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            assert abs(module.weight.std().item() - 0.02) < 2e-3
            assert module.bias is None or module.bias.abs().max() == 0


def test_the_nanos_initial_weights_keep_the_variance():
    for module in nano().modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            expected = (2 / module.weight[0].numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.25)
    with pytest.raises(SemabenchError, match="Did you mean 'kaiming'"):
        timm.create_model("vmamba_nano", weight_init="kaimin")


def test_no_weight_decay_and_layers():
    model = nano()
    spared = model.no_weight_decay()
    assert {"stages.2.blocks.1.op.mixer.A_logs", "stages.0.blocks.0.op.mixer.Ds"} <= spared
    assert len(spared) == 2 * 5
    names = {name for name, _ in model.named_parameters()}
    assert spared <= names
    groups = group_parameters(model, model.group_matcher())
    assert {name for group in groups.values() for name in group} == names
    macro = timm.create_model("sema_nano", mixer="ssm")
    assert "stages.0.blocks.0.mixer.A_logs" in macro.no_weight_decay()


def test_gradient_checkpointing_changes_nothing():
    model = nano()
    assert_checkpointing_changes_nothing(model, list(model.stages))


def test_memory_format_does_not_matter():
    model = nano().eval()
    x = torch.randn(2, 3, 40, 48)
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    y = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)


def test_bfloat16_autocast_trains():
    model = nano().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(4, 3, 40, 40)).float().square().sum()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_compiles_whole():
    model = nano(depths=(1, 1)).eval()
    x = torch.randn(1, 3, 32, 24)
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    assert_gpu_agrees_with_cpu(nano().eval())
