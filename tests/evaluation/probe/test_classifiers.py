"""Votes against a loop over images, and a linear layer against its own gradient."""

import math

import pytest
import torch
from torch.nn import functional as F

from semabench.errors import SemabenchError
from semabench.evaluation.probe.classifiers import Features, fit_linear, require_enough, vote


def clusters(per_class, classes=3, dim=6, noise=0.3, seed=0):
    """Features in classes, sorted as a dataset's are, around centres that all splits share."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(7)).double()
    labels = torch.arange(classes).repeat_interleave(per_class)
    drawn = torch.randn(len(labels), dim, generator=torch.Generator().manual_seed(seed)).double()
    return Features(centres[labels] + noise * drawn, labels)


@pytest.mark.parametrize("neighbors", [1, 5])
def test_votes_are_those_of_a_loop_over_images(neighbors):
    train, x = clusters(20, noise=2.0), clusters(200, noise=2.0, seed=1).x  # more than one chunk
    found = torch.cat(list(vote(train, x, 4, neighbors, temperature=0.07)))
    assert found.shape == (600, 4)
    for image, votes in list(zip(x, found, strict=True))[::37]:
        cosines = [float(F.cosine_similarity(image, one, dim=0)) for one in train.x]
        nearest = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:neighbors]
        expected = [0.0] * 4
        for i in nearest:
            expected[int(train.labels[i])] += math.exp((cosines[i] - cosines[nearest[0]]) / 0.07)
        assert votes.tolist() == pytest.approx(expected)


def test_a_small_temperature_does_not_overflow():
    train = clusters(5)
    (votes,) = vote(train, train.x, 3, 4, temperature=1e-4)
    assert votes.isfinite().all()
    assert (votes.argmax(dim=1) == train.labels).all()  # each is its own nearest


def test_too_few_images_are_refused():
    require_enough(15, [15])
    with pytest.raises(SemabenchError, match="neighbors=16 are more than the 15 images"):
        require_enough(15, [1, 16])
    with pytest.raises(SemabenchError, match="9 training images are too few"):
        require_enough(9, [])


def test_parts_of_the_images_give_the_same_layer(monkeypatch):
    whole = fit_linear(clusters(40), 3, [0.01])
    monkeypatch.setattr("semabench.evaluation.probe.classifiers._AT_ONCE", 7)
    parts = fit_linear(clusters(40), 3, [0.01])
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-6, atol=1e-8)


def test_the_layer_minimises_what_it_says():
    train = clusters(40, noise=1.5)
    fitted = fit_linear(train, 3, [0.01])
    assert fitted.penalty == 0.01
    x = (train.x - train.x.mean(dim=0)) / train.x.std(dim=0)
    weight, bias = fitted.weight.clone().requires_grad_(), fitted.bias.clone().requires_grad_()
    loss = F.cross_entropy(x @ weight.T + bias, train.labels) + 0.005 * weight.square().sum()
    loss.backward()
    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4
    torch.testing.assert_close(fitted(train.x), x @ fitted.weight.T + fitted.bias)


def test_the_penalty_is_the_one_that_suits_images_left_out():
    # 6 features tell the class and 250 nothing: without a penalty these are fitted, too
    def padded(features, seed):
        generator = torch.Generator().manual_seed(seed)
        rest = torch.randn(len(features), 250, generator=generator).double()
        return Features(torch.cat([features.x, rest], dim=1), features.labels)

    train, test = padded(clusters(200, noise=1.0), 2), padded(clusters(300, noise=1.0, seed=1), 3)
    chosen = fit_linear(train, 3, [1.0, 1e-8])
    assert chosen.penalty == 1.0
    assert chosen.hits(test) > fit_linear(train, 3, [1e-8]).hits(test) + 20  # of 900
