"""The Lightning module: draws per step, averaged weights, mixing, decay of the loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from semabench.config import RecipeConfig
from semabench.data.mixing import Mix
from semabench.data.normalize import Normalize
from semabench.training.module import Classifier, step_seed


def classifier(**recipe) -> Classifier:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4))
    settings = {"name": "r", "mixup": 0.0, "cutmix": 0.0, "epochs": 2, "warmup_epochs": 0}
    return Classifier(
        model,
        RecipeConfig(**(settings | recipe)),
        num_classes=4,
        steps_per_epoch=3,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        seed=7,
        describe={"config": {}},
    )


def batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 3, 2, 2), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 4, (n,), generator=generator)


def test_normalisation_equals_the_formula_and_keeps_the_layout():
    images = batch()[0].to(memory_format=torch.channels_last)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = Normalize(mean, std)(images)
    expected = (images / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(
        1, 3, 1, 1
    )
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert images.dtype == torch.uint8


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 1000))
def test_step_seeds_are_valid_and_differ_by_step_and_rank(seed, step, rank):
    seeds = {
        step_seed(seed, step, rank),
        step_seed(seed, step + 1, rank),
        step_seed(seed, step, rank + 1),
        step_seed(seed + 1, step, rank),
    }
    assert len(seeds) == 4
    assert all(0 <= s < 2**63 for s in seeds)


def test_a_steps_draws_depend_on_the_step_alone():
    first, second = classifier(), classifier()
    first.train()
    second.train()
    first.on_train_batch_start(batch(), 0)
    expected = first.training_step(batch(), 0)
    torch.rand(100)  # whatever happened before
    second.on_train_batch_start(batch(), 5)
    assert torch.equal(second.training_step(batch(), 5), expected)


def test_the_averaged_weights_start_as_a_copy_and_follow_the_formula(monkeypatch):
    module = classifier(ema_decay=0.9)
    assert module.ema is not None
    weight = module.model[2].weight
    expected = weight.detach().clone()
    for step in (1, 2, 3):
        monkeypatch.setattr(Classifier, "global_step", step)
        with torch.no_grad():
            weight += 1
        module.on_train_batch_end(None, batch(), 0)
        decay = 0.0 if step == 1 else 0.9
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(module.ema.module[2].weight, expected)
    assert module.monitor == "val_ema/top1"
    assert classifier().monitor == "val/top1"


def test_only_the_model_is_optimised():
    module = classifier(ema_decay=0.9)
    optimizer = module.configure_optimizers()["optimizer"]
    optimised = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in module.model.parameters()}


def test_checkpoints_say_what_they_hold():
    checkpoint: dict = {}
    classifier().on_save_checkpoint(checkpoint)
    assert checkpoint["semabench"] == {"config": {}}


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_targets_are_the_mixture_of_the_labels(mixup, cutmix):
    torch.manual_seed(3)
    images = torch.rand(16, 3, 8, 8)
    labels = torch.arange(16) % 4
    mix = Mix(4, mixup=mixup, cutmix=cutmix, prob=1.0, switch_prob=0.5)
    for _ in range(5):
        mixed, targets = mix(images, labels)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(16))
        other = labels.roll(1)
        share = targets.gather(1, labels[:, None])[:, 0]
        assert (targets.gather(1, other[:, None])[:, 0] - (1 - share)).abs().max() < 1e-6
        if cutmix == 0:  # the pixels are mixed in the same proportion
            ratio = float(share[0])
            expected = ratio * images + (1 - ratio) * images.roll(1, 0)
            torch.testing.assert_close(mixed, expected)
        elif mixup == 0:  # each pixel is one of the two, in that proportion
            kept = (mixed == images).all(dim=1).float().mean(dim=(1, 2))
            assert (kept - share).abs().max() < 1e-6


def test_mixing_can_be_rare_or_off():
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    off = Mix(4, mixup=0.0, cutmix=0.0, prob=1.0, switch_prob=0.5)
    assert off(images, labels)[1] is labels
    rare = Mix(4, mixup=1.0, cutmix=0.0, prob=0.25, switch_prob=0.5)
    torch.manual_seed(0)
    mixed = sum(rare(images, labels)[1] is not labels for _ in range(400))
    assert 70 <= mixed <= 130  # 100 expected, standard deviation 8.7
