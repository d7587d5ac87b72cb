"""The model that a run starts with: weights of another run, other resolutions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from semabench.config.schema import DataConfig, ModelConfig, RecipeConfig, TrainConfig
from semabench.errors import SemabenchError
from semabench.models import build_model
from semabench.training.lightning_compat import AtomicCheckpointIO
from semabench.training.run import check_memory, create_model, create_module


def config(name, checkpoint=None, resolution=64, **recipe):
    return TrainConfig(
        model=ModelConfig(name=name, checkpoint=None if checkpoint is None else str(checkpoint)),
        data=DataConfig(name="d", packed="p", resolution=resolution),
        recipe=RecipeConfig(name="r", **recipe),
    )


def save(path, name, resolution=32):
    """A run's checkpoint whose plain weights are zeros, and its averaged ones as initialised."""
    model = build_model(name, num_classes=3, resolution=resolution, options={})
    averaged = model.state_dict()
    state = {f"ema.module.{key}": value for key, value in averaged.items()}
    state |= {f"model.{key}": torch.zeros_like(value) for key, value in averaged.items()}
    describe = {"config": {"data": {"resolution": resolution}}}
    AtomicCheckpointIO().save_checkpoint(
        {"state_dict": state, "semabench": describe, "global_step": 1}, path
    )
    return averaged


def test_fine_tuning_starts_from_a_runs_averaged_weights(tmp_path, caplog):
    averaged = save(tmp_path / "checkpoints" / "previous.ckpt", "sema_nano")
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"torn")
    for where in (tmp_path, tmp_path / "checkpoints" / "previous.ckpt"):
        state = create_model(config("sema_nano", where), 3).state_dict()
        assert all(torch.equal(state[key], averaged[key]) for key in averaged)
    assert "is damaged" in caplog.text
    with pytest.raises(SemabenchError, match="has no checkpoint"):
        create_model(config("sema_nano", tmp_path / "checkpoints"), 3)


def test_a_constant_rate_without_weights_to_start_from_is_warned_of(tmp_path, caplog):
    save(tmp_path / "last.ckpt", "sema_nano")
    tuned = config("sema_nano", tmp_path / "last.ckpt")
    tuned.recipe.lr = tuned.recipe.min_lr = tuned.recipe.warmup_lr = 1e-5
    create_model(tuned, 3)
    create_model(config("sema_nano"), 3)
    assert caplog.text == ""
    tuned.model.checkpoint = None
    create_model(tuned, 3)
    assert "sema_nano starts from random weights: give model.checkpoint=PATH" in caplog.text


@pytest.mark.parametrize(("name", "patch"), [("vim_nano", 8), ("deit_tiny_patch16_224", 16)])
def test_tables_of_positions_are_brought_to_the_new_resolution(tmp_path, name, patch):
    averaged = save(tmp_path / "last.ckpt", name)
    model = create_model(config(name, tmp_path / "last.ckpt", 64), 3)
    assert averaged["pos_embed"].shape[1] == (32 // patch) ** 2 + 1
    assert model.pos_embed.shape[1] == (64 // patch) ** 2 + 1
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("name", ["sema_nano", "vim_nano", "vmamba_nano", "resnet10t"])
def test_weights_of_other_classes_give_all_but_the_classifier(tmp_path, capsys, name):
    averaged = save(tmp_path / "last.ckpt", name, resolution=64)  # of 3 classes
    torch.manual_seed(1)
    model = create_model(config(name, tmp_path / "last.ckpt"), 5)
    told = " ".join(capsys.readouterr().err.split())
    assert "is for 3 classes: the classifier of 5 is made anew" in told
    state = model.state_dict()
    other = [key for key in state if not torch.equal(state[key], averaged[key])]
    (classifier,) = [n for n, m in model.named_modules() if m is model.get_classifier()]
    assert set(other) == {f"{classifier}.weight", f"{classifier}.bias"}
    assert len(state[f"{classifier}.weight"]) == 5


def test_a_model_of_one_resolution_has_no_schedule():
    schedule = [[0, 32], [1, 64]]
    assert create_model(config("vim_nano", resolution_schedule=schedule), 3)
    with pytest.raises(SemabenchError, match="built for one resolution"):
        create_model(config("deit_tiny_patch16_224", resolution_schedule=schedule), 3)
    assert create_model(config("sema_nano", mixed_resolutions=[32, 64]), 3)
    with pytest.raises(SemabenchError, match=r"leave recipe\.mixed_resolutions out"):
        create_model(config("deit_tiny_patch16_224", mixed_resolutions=[32, 64]), 3)


@pytest.mark.parametrize("where", ["device", "cpu"])
def test_pixels_are_augmented_once_where_the_data_say(where):
    """By the batch's device, or by the loader's workers; rectangles are erased on the device."""
    made = config("sema_nano")
    made.data.augment_on = where
    made.recipe.rand_augment, made.recipe.random_erase = "rand-m9-mstd0.5-inc1", 0.25
    data = SimpleNamespace(classes=["a", "b"], steps_per_epoch=3, fingerprint="f", augment=None)
    module = create_module(made, create_model(made, 2), data)
    assert bool(module.augment.pixels) == (where == "device")
    assert (data.augment is not None and data.augment.rand_augment is not None) == (where == "cpu")
    assert module.augment.random_erase == 0.25


def test_the_family_that_torch_dies_of_is_refused_on_a_cpu():
    fastvit = build_model("fastvit_t8", num_classes=2, resolution=64, options={})
    with pytest.raises(SemabenchError, match="FastViT cannot be trained on a CPU"):
        check_memory(fastvit, "cpu")
    check_memory(fastvit, "gpu")
    check_memory(build_model("resnet18", num_classes=2, resolution=64, options={}), "cpu")
