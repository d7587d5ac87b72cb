"""The Lightning module: draws per step and sample, averaged weights, decay of the loss."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers.small_run import fit, small_batches, small_module
from semabench.config.schema import RecipeConfig
from semabench.data.augment.batch import Normalize, PixelAugment
from semabench.data.draws import Samples
from semabench.training.forward import Forward
from semabench.training.module import Classifier
from semabench.training.optim import create_optimizer
from semabench.training.step import TrainStep, step_seed


def classifier(pixels: PixelAugment | None = None, **recipe) -> Classifier:
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
        pixels=pixels,
    )


def step_of(module: Classifier) -> TrainStep:
    return module.create_step(create_optimizer(module.model, module.recipe))


def batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor, Samples]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 3, 2, 2), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 4, (n,), generator=generator), Samples(0, np.arange(n))


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
    expected = step_of(first.train())(*batch(), 5).clone()
    torch.rand(100)  # whatever happened before
    step = step_of(second.train())
    assert torch.equal(step(*batch(), 5), expected)
    assert not torch.equal(step(*batch(), 6), expected)


def test_the_averaged_weights_start_as_a_copy_and_follow_the_formula():
    module = classifier(ema_decay=0.9)
    assert module.ema is not None
    weight = module.model[2].weight
    expected = weight.detach().clone()
    step = step_of(module)
    for number in range(3):
        step(*batch(), number)
        decay = 0.0 if number == 0 else 0.9
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(module.ema.module[2].weight, expected)
    assert not torch.equal(module.ema.module[2].weight, weight)
    assert module.monitor == "val_ema/top1"
    assert classifier().monitor == "val/top1"


def test_a_resumed_run_does_not_start_its_average_anew():
    module = classifier(ema_decay=0.9)
    before = module.ema.module[2].weight.clone()
    with torch.no_grad():
        module.model[2].weight += 1
    step_of(module)(*batch(), 17)
    expected = 0.9 * before + 0.1 * module.model[2].weight.detach()
    torch.testing.assert_close(module.ema.module[2].weight, expected)


def test_only_the_model_is_optimised():
    module = classifier(ema_decay=0.9)
    (optimizer,) = fit(module, [batch()], []).optimizers
    optimised = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in module.model.parameters()}


def test_checkpoints_say_what_they_hold():
    checkpoint: dict = {}
    classifier().on_save_checkpoint(checkpoint)
    assert checkpoint["semabench"] == {"config": {}}


def test_mesa_adds_the_cross_entropy_with_the_averaged_weights_predictions():
    def prepared(**recipe) -> tuple[Classifier, TrainStep]:
        module = classifier(ema_decay=0.9, **recipe)
        module.eval()  # no dropout
        module.ema.module.eval()
        with torch.no_grad():
            module.ema.module[2].weight += 0.3
        return module, step_of(module)

    whole = batch()
    plain = prepared()[1]
    alone = plain(*whole, 0).clone()
    assert plain.mesa_term is None
    assert torch.equal(prepared(mesa=1.5)[1](*whole, 0, mesa=False), alone)
    module, step = prepared(mesa=1.5)
    pixels = module.normalize(whole[0])
    teacher = module.ema.module(pixels).softmax(-1).detach()
    student = module.model(pixels).log_softmax(-1)
    expected = alone - 1.5 * (teacher * student).sum(-1).mean()
    loss = step(*whole, 0, mesa=True)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(loss - step.mesa_term, alone)
    assert all(p.grad is None for p in module.ema.parameters())


def test_mesa_begins_with_its_epoch(monkeypatch):
    module = classifier(ema_decay=0.9, mesa=1.5, mesa_start=0.5)
    for epoch, on in ((0, False), (1, True)):
        monkeypatch.setattr(Classifier, "current_epoch", epoch)
        assert module.mesa_is_on is on


def test_pixels_are_augmented_before_and_erased_after_normalisation(monkeypatch):
    module = classifier(PixelAugment(color_jitter=0.4, seed=7), random_erase=1.0)
    images, labels, samples = batch()
    seen = []
    monkeypatch.setattr(
        module.model, "forward", lambda x: (seen.append(x), module.model[2](x.flatten(1)))[1]
    )
    step = step_of(module)
    step(images, labels, samples, 0)
    expected = module.normalize(module.augment.change(images, samples))
    assert not torch.equal(expected, module.normalize(images))
    assert torch.equal(seen[0], module.augment.erase(expected, samples))
    step(images, labels, Samples(1, samples.keys), 0)
    assert not torch.equal(seen[0], seen[1])  # another epoch
    forward = Forward(module.model, module.normalize, torch.device("cpu"), "32-true")
    monkeypatch.setattr(module, "_forwards", [forward])
    monkeypatch.setattr(module, "counts", type("Counts", (), {"add": lambda *_: None})())
    module.validation_step((images, labels), 0)
    assert torch.equal(seen[2], module.normalize(images))  # as they are


def test_the_averaged_weights_predict_without_dropout():
    """Lightning puts a module's parts into training mode, but not those that were out of it."""
    modes = set()

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            modes.add((pl_module.model.training, pl_module.ema.module[1].training))

    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 4))
    fit(small_module(2, model=model), small_batches(2), [Watch()])
    assert modes == {(True, False)}
