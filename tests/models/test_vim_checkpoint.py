"""Official Vim checkpoints, at their own resolution and stride and at others."""

import json

import pytest
import timm
import torch

import semabench.models  # noqa: F401  registers the names
from semabench.errors import SemabenchError
from semabench.models.checkpoint import load_checkpoint
from semabench.models.vim import fit_positions, resample_positions

OFFICIAL = {
    "vim_tiny": "t",
    "vim_small": "s",
    "vim_base": "b",
    "vim_tiny_plus": "t_plus",
    "vim_small_plus": "s_plus",
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_keys_are_ours(golden_dir, name):
    official = json.loads((golden_dir / f"full_vim_{OFFICIAL[name]}.json").read_text())
    with torch.device("meta"):
        model = timm.create_model(name)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == official["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == official["n_params"]
    rate = getattr(model.layers[-1].drop_path, "drop_prob", 0.0)
    assert rate == pytest.approx(official["constructor_kwargs"]["drop_path_rate"])


def nano(seed, **kwargs):
    torch.manual_seed(seed)
    return timm.create_model("vim_nano", **{"img_size": 32, "num_classes": 5, "depth": 2, **kwargs})


def test_vim_reports_its_plain_weights(tmp_path):
    plain, averaged = nano(2).state_dict(), nano(3).state_dict()
    path = tmp_path / "both.pth"
    torch.save({"model": plain, "model_ema": averaged}, path)
    model = nano(1)
    for weights, found, state in (("auto", "model", plain), ("ema", "ema", averaged)):
        assert load_checkpoint(model, path, "vim_nano", weights).which == found
        assert torch.equal(model.state_dict()["head.weight"], state["head.weight"])
    # Of a run of ours the averaged ones are taken, as by checkpoint=RUN.
    ours = {f"model.{k}": v for k, v in plain.items()}
    ours |= {f"ema.module.{k}": v for k, v in averaged.items()}
    torch.save({"state_dict": ours}, path)
    assert load_checkpoint(model, path, "vim_nano").which == "ema"
    assert torch.equal(model.state_dict()["head.weight"], averaged["head.weight"])
    assert load_checkpoint(model, path, "vim_nano", "model").which == "model"
    assert torch.equal(model.state_dict()["head.weight"], plain["head.weight"])


def load(path, **kwargs):
    model = nano(1, **kwargs)
    load_checkpoint(model, path, "vim_nano")
    return model


@pytest.fixture
def saved(tmp_path):
    """Return (a model, the file that the official code would have written of it)."""
    model = nano(0)
    torch.save({"model": model.state_dict(), "epoch": 299}, tmp_path / "official.pth")
    return model, tmp_path / "official.pth"


def test_official_checkpoints_load(saved):
    model, path = saved
    loaded = load(path).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded[key], value), key


@pytest.mark.parametrize(
    ("kwargs", "grid"), [({"img_size": (64, 40)}, (8, 5)), ({"stride": 4}, (7, 7))]
)
def test_positions_of_another_size_or_stride_are_interpolated(saved, kwargs, grid):
    model, path = saved
    loaded = load(path, **kwargs)
    assert loaded.grid_size == grid
    expected = resample_positions(model.pos_embed, (4, 4), grid)
    torch.testing.assert_close(loaded.pos_embed, expected)


@pytest.mark.parametrize("name", ["vim_tiny", "vim_small"])
def test_weights_of_half_the_stride_are_refused(name):
    """The official file of stride 8 fits in all else; weights of stride 16 go either way."""
    models = {n: timm.create_model(n, depth=1) for n in (name, f"{name}_plus")}
    plain, plus = models[name], models[f"{name}_plus"]
    with pytest.raises(SemabenchError, match=r"27 x 27 positions.*take vim_tiny_plus"):
        fit_positions(plus.state_dict(), plain)
    assert fit_positions(plain.state_dict(), plus)["pos_embed"].shape == plus.pos_embed.shape
    other = timm.create_model(name, depth=1, img_size=432)
    assert torch.equal(fit_positions(plus.state_dict(), other)["pos_embed"], plus.pos_embed)


def test_loading_at_a_size_is_running_at_it(saved):
    """Interpolated once when loaded, or each time when run: the same model."""
    model, path = saved
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(load(path, img_size=64).eval()(x), model.eval()(x))


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        ({}, {"num_classes": 7}, "is for 5 classes, the model for 7"),
        ({}, {"embed_dim": 32}, r"has the shape"),
        ({"pos_embed": torch.zeros(1, 6, 96)}, {}, r"pos_embed has the shape \(1, 6, 96\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, saved, change, kwargs, message):
    model, _ = saved
    torch.save({**model.state_dict(), **change}, tmp_path / "wrong.pth")
    with pytest.raises(SemabenchError, match=message) as error:
        load(tmp_path / "wrong.pth", **kwargs)
    assert "\n" not in str(error.value)
