"""A training on a GPU: graphs do what eager steps do, for every mixer."""

import pytest
import torch

from semabench.mixers import list_mixers
from semabench.study.plan import Recipe, Training
from semabench.study.training import train

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("mixer", list_mixers())
def test_graphs_learn_what_eager_steps_do(mixer, caplog):
    training = Training(
        task="needle",
        clear=3,
        pairs=(),
        mixer=mixer,
        seed=3,
        train_resolutions=(96, 128),
        readout="query",
        depth=1,
        embed_dim=32,
        num_heads=2,
        recipe=Recipe(60, 32, 1e-3, 10, 0.01, 1.0),
    )
    device = torch.device("cuda")
    graphs, eager = (train(training, device, graph=flag) for flag in (True, False))
    assert not caplog.records  # each was recorded
    assert graphs.loss == pytest.approx(eager.loss, rel=0.01)
    for name, value in graphs.model.state_dict().items():
        torch.testing.assert_close(value, eager.model.state_dict()[name], rtol=0.1, atol=0.01)
