"""The model of the diagnostics: what its answer can depend on."""

import pytest
import timm
import torch

from semabench.data.procedural.draw import draw, open_cells
from semabench.data.procedural.tasks import task_named
from semabench.errors import SemabenchError
from semabench.mixers import list_mixers
from semabench.models import build_model
from semabench.models.probe import reach

CELL = 8


def probe(mixer="sema", **options):
    torch.manual_seed(0)
    return build_model(
        "probe_nano",
        num_classes=8,
        resolution=128,
        mixer=mixer,
        options={"embed_dim": 16} | options,
    ).double()


def felt(model, height, width):
    """Which tokens the logits depend on, by their gradient."""
    images = torch.randn(1, 3, height * CELL, width * CELL, dtype=torch.float64)
    images.requires_grad_()
    model(images).square().sum().backward()
    cells = images.grad.abs().sum(1).unflatten(1, (height, CELL)).unflatten(3, (width, CELL))
    return cells.sum((0, 2, 4)) > 0


@pytest.mark.parametrize("mixer", ["none", "window", "softmax", "mean", "focused"])
@pytest.mark.parametrize("options", [{}, {"depth": 2}])
def test_reach_is_what_the_gradient_feels(mixer, options):
    model = probe(mixer, **options)
    for height, width in ((23, 26), (16, 16)):
        assert torch.equal(felt(model, height, width), reach(model, height, width))


@pytest.mark.parametrize("options", [{"lepe": True}, {"window_size": 4, "shift": True, "depth": 2}])
def test_local_terms_and_shifted_windows_reach_farther(options):
    model = probe("window", **options)
    assert torch.equal(felt(model, 24, 24), reach(model, 24, 24))


@pytest.mark.parametrize("depth", [1, 2])
def test_convolutions_alone_reach_three_tokens_a_block(depth):
    region = reach(probe("none", depth=depth), 31, 31)
    assert region.sum() == (6 * depth + 1) ** 2
    assert region[15 - 3 * depth : 16 + 3 * depth, 15 - 3 * depth : 16 + 3 * depth].all()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("task", ["majority", "needle", "recall"])
def test_without_mixing_the_answer_does_not_depend_on_the_picture(task, depth):
    """The control `none` is at chance whatever it learns; softmax's answers differ."""
    drawn = task_named(task, clear=3 * depth)
    index = torch.arange(24)
    images, labels = draw(drawn, 20, seed=0, epoch=0, index=index)
    asked = images[:, 0, 80:88, 80:88].flatten(1)  # recall's query shows one of the keys
    assert len(labels.unique()) > 4
    for mixer, distinct in (("none", len(asked.unique(dim=0))), ("softmax", len(index))):
        with torch.no_grad():
            logits = probe(mixer, depth=depth)(images.double())
        assert len((logits * 1e9).round().unique(dim=0)) == distinct


@pytest.mark.parametrize("mixer", list_mixers())
def test_all_mixers_answer_at_any_size_and_are_of_like_size(mixer):
    model = build_model("probe_nano", num_classes=8, resolution=128, mixer=mixer, options={})
    assert model(torch.randn(2, 3, 104, 128)).shape == (2, 8)
    assert 60_000 < sum(p.numel() for p in model.parameters()) < 80_000


def test_timms_habits():
    features = timm.create_model("probe_nano", features_only=True)
    assert features.feature_info.reduction() == [8]
    assert [f.shape for f in features(torch.randn(1, 3, 64, 72))] == [(1, 64, 8, 9)]
    model = timm.create_model("probe_nano", num_classes=5, mixer="ssm")
    model.set_grad_checkpointing()
    model.train()(torch.randn(1, 3, 64, 64)).sum().backward()
    assert "stages.0.blocks.0.mixer.A_logs" in model.no_weight_decay()


def test_a_single_block_has_no_stochastic_depth():
    with pytest.raises(SemabenchError, match="no effect on a single block"):
        timm.create_model("probe_nano", drop_path_rate=0.1)
    model = timm.create_model("probe_nano", depth=2, drop_path_rate=0.1)
    assert model.stages[0].blocks[1].drop_path1.drop_prob == 0.1


def test_read_outs():
    x = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    model = probe("none")
    grid = model.forward_features(x)
    assert torch.equal(model.forward_head(grid, pre_logits=True), grid[:, 8, 8])
    model.reset_classifier(5, "avg")
    torch.testing.assert_close(
        model.forward_head(grid, pre_logits=True), grid.mean((1, 2)).double()
    )
    model.reset_classifier(5, "attention")
    model.double()
    pooled = model.forward_head(grid, pre_logits=True)
    weights = torch.softmax(grid.flatten(1, 2) @ model.head.score.weight[0], dim=1)
    torch.testing.assert_close(pooled, (weights[..., None] * grid.flatten(1, 2)).sum(1))
    assert model(x).shape == (2, 5)
    model.reset_classifier(0)
    assert model(x).shape == (2, 16)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), grid)
    with pytest.raises(SemabenchError, match="Did you mean 'query'"):
        model.reset_classifier(5, "qurey")


def test_a_window_sees_more_or_less_as_its_borders_fall():
    """Why the study's `window` finds some needles: all at 96 and 112 px, a third at 128 px."""
    model = probe("window")
    shares = {}
    for size in (12, 14, 16, 32, 64, 128):
        places = open_cells(size, 3, torch.device("cpu"))
        seen = reach(model, size, size).flatten()[places]
        shares[size] = (int(seen.sum()), len(places))
    assert shares == {
        12: (95, 95),
        14: (147, 147),
        16: (72, 207),
        32: (72, 975),
        64: (72, 4047),
        128: (72, 16335),
    }
