"""A training on a CPU: repeatable, learns, and its test counts what a plain loop would."""

from dataclasses import replace

import pytest
import torch

from semabench.data.procedural.draw import TEST_EPOCH, draw
from semabench.errors import SemabenchError
from semabench.study.plan import Recipe, Training
from semabench.study.training import count_correct, train

CPU = torch.device("cpu")
TRAINING = Training(
    task="texture",
    clear=3,
    pairs=(),
    mixer="none",
    seed=3,
    train_resolutions=(64, 72),
    readout="query",
    depth=1,
    embed_dim=32,
    num_heads=2,
    recipe=Recipe(60, 16, 5e-3, 5, 0.01, 1.0),
)


def correct(trained, samples=128):
    return count_correct(
        trained.model,
        TRAINING.drawn(),
        10,
        seed=0,
        test_on="test",
        samples=samples,
        device=CPU,
    )


def test_a_control_learns_texture_and_the_same_again():
    trained, again = train(TRAINING, CPU), train(TRAINING, CPU)
    assert trained.loss == again.loss
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert correct(trained) > 64  # chance: 16
    images, labels = draw(TRAINING.drawn(), 10, seed=0, epoch=TEST_EPOCH, index=torch.arange(128))
    with torch.no_grad():
        assert correct(trained) == (trained.model(images).argmax(1) == labels).sum()
    other = train(replace(TRAINING, seed=4, recipe=replace(TRAINING.recipe, steps=3)), CPU)
    assert other.loss != trained.loss


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(SemabenchError, match="texture none, 64,72 px, seed 3: the loss is not"):
        train(replace(TRAINING, recipe=replace(TRAINING.recipe, steps=16, lr=1e30)), CPU)
