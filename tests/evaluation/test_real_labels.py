"""ReaL's accuracy is timm's, whatever the order of images and the size of batches."""

import pytest
import torch
from timm.data.real_labels import RealLabelsImagenet

from semabench.errors import SemabenchError
from semabench.evaluation.real_labels import RealCounts, numbered, real_labels


def test_it_counts_what_timm_counts():
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(50_000, generator=generator)
    names = [f"ILSVRC2012_val_{k + 1:08d}.JPEG" for k in order.tolist()]
    theirs = RealLabelsImagenet(names)
    sets = real_labels([f"n01440764/{name}" for name in names], "imagenet")
    logits = torch.randn(50_000, 1000, generator=generator)
    logits[::2] += 6 * sets[::2]  # some right
    theirs.add_result(logits)
    labels = torch.zeros(50_008, dtype=torch.long)
    labels[-8:] = -1  # padding
    padded = torch.cat([logits, torch.zeros(8, 1000)])
    counts = RealCounts(sets)
    for images, places in numbered(zip(padded.split(1000), labels.split(1000), strict=True)):
        counts.add(images, places)
    n, top1, top5 = counts.correct()
    assert n == int(sets.any(1).sum()) == len(theirs.is_correct[1]) == 46_837
    assert 100 * top1 / n == pytest.approx(theirs.get_accuracy(1))
    assert 100 * top5 / n == pytest.approx(theirs.get_accuracy(5))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (None, "does not tell its images' names"),
        (["n01440764/mine.JPEG"], "mine.JPEG of d is not called ILSVRC2012_val_"),
        (["ILSVRC2012_val_00050001.JPEG"], "is not called"),
    ],
)
def test_other_images_are_refused(paths, message):
    with pytest.raises(SemabenchError, match=message):
        real_labels(paths, "d")
