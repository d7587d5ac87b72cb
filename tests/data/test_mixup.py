"""Mixup and cutmix against timm's, given the same coefficient and box."""

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data import Mixup
from timm.data.mixup import cutmix_bbox_and_lam
from torch.nn import functional as F

from semabench.data.mixup import Mix, cutmix, cutmix_box, mix_labels, mixup


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 3, 12, 12, generator=generator)
    return images.to(memory_format=torch.channels_last), torch.arange(16) % 5


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.77, 1.0])
def test_mixup_is_timms(batch, lam, monkeypatch):
    images, labels = batch
    timm = Mixup(mixup_alpha=0.8, label_smoothing=0.1, num_classes=5)
    monkeypatch.setattr(timm, "_params_per_batch", lambda: (lam, False))
    expected, targets = timm(images.clone(), labels)
    ours = mixup(images, lam)
    torch.testing.assert_close(ours, expected)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    # Smoothed by the loss, as here, or in the targets, as in timm: the same loss.
    logits = torch.randn(16, 5, generator=torch.Generator().manual_seed(1))
    loss = F.cross_entropy(logits, mix_labels(labels, lam, 5), label_smoothing=0.1)
    theirs = -(targets * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, theirs)


@pytest.mark.parametrize("lam", [0.02, 0.3, 0.77, 0.999])
@pytest.mark.parametrize("centre", [(0, 0), (5, 7), (11, 11), (11, 2)])
def test_cutmix_is_timms(batch, lam, centre, monkeypatch):
    images, labels = batch
    drawn = iter(centre)
    monkeypatch.setattr(np.random, "randint", lambda *args, **kwargs: next(drawn))
    (top, bottom, left, right), corrected = cutmix_bbox_and_lam(images.shape, lam)
    box = cutmix_box(12, 12, lam, centre)
    assert box == (top, bottom, left, right)

    drawn = iter(centre)
    timm = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=5)
    monkeypatch.setattr(timm, "_params_per_batch", lambda: (lam, True))
    expected, targets = timm(images.clone(), labels)
    before = images.clone()
    assert torch.equal(cutmix(images, box), expected)
    assert torch.equal(images, before)
    torch.testing.assert_close(mix_labels(labels, corrected, 5), targets)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_targets_are_the_mixture_of_the_pixels(mixup, cutmix):
    torch.manual_seed(3)
    images, labels = torch.rand(16, 3, 8, 8), torch.arange(16)
    mix = Mix(16, mixup=mixup, cutmix=cutmix, prob=1.0, switch_prob=0.5)
    for _ in range(5):
        mixed, targets = mix(images, labels)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(16))
        share = targets.diagonal()
        torch.testing.assert_close(targets.flip(0).diagonal(), 1 - share)
        if cutmix == 0:  # the pixels are mixed in the same proportion
            ratio = float(share[0])
            torch.testing.assert_close(mixed, ratio * images + (1 - ratio) * images.flip(0))
        elif mixup == 0:  # each pixel is one of the two, in that proportion
            kept = (mixed == images).all(dim=1).float().mean(dim=(1, 2))
            torch.testing.assert_close(kept, share)


def test_coefficients_are_distributed_as_timms():
    images, labels = torch.zeros(2, 1, 64, 64), torch.arange(2)
    for alphas in ((0.8, 0.0), (0.0, 1.0)):
        torch.manual_seed(5)
        np.random.seed(5)
        mix = Mix(2, mixup=alphas[0], cutmix=alphas[1], prob=1.0, switch_prob=0.5)
        timm = Mixup(*alphas, label_smoothing=0.0, num_classes=2)
        ours = [float(mix(images, labels)[1][0, 0]) for _ in range(1500)]
        theirs = [float(timm(images, labels)[1][0, 0]) for _ in range(1500)]
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_mixing_can_be_rare_or_off():
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    off = Mix(4, mixup=0.0, cutmix=0.0, prob=1.0, switch_prob=0.5)
    assert off(images, labels)[1] is labels
    rare = Mix(4, mixup=1.0, cutmix=0.0, prob=0.25, switch_prob=0.5)
    torch.manual_seed(0)
    mixed = sum(rare(images, labels)[1] is not labels for _ in range(400))
    assert 70 <= mixed <= 130  # 100 expected, standard deviation 8.7


def test_cutmix_is_chosen_as_often_as_told():
    images = torch.rand(2, 1, 16, 16) + torch.tensor([0.0, 9.0]).view(2, 1, 1, 1)
    mix = Mix(2, mixup=0.8, cutmix=1.0, prob=1.0, switch_prob=0.8)
    torch.manual_seed(1)
    chosen = 0
    for _ in range(400):
        mixed, _ = mix(images, torch.arange(2))
        chosen += bool(((mixed == images) | (mixed == images.flip(0))).all())
    assert 295 <= chosen <= 345  # 320 expected, standard deviation 8
