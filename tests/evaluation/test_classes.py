"""Classes are matched by name: in any order, some of them, and never by their count."""

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.evaluation.classes import among_all, columns_of, imagenet_wnids, own_logits


def test_names_find_their_logits():
    known = list("abcde")
    assert columns_of(list("abcde"), known, 5, "m") == [0, 1, 2, 3, 4]
    assert columns_of(list("db"), known, 5, "m") == [3, 1]
    assert columns_of(["x", "y"], None, 2, "m") == [0, 1]
    text = [str(n) for n in sorted(range(12), key=str)]  # of a run that sorted numbers as text
    assert columns_of(text, text, 12, "m") == list(range(12))


def test_folders_by_number_are_imagenets_classes_in_its_order():
    wnids = list(imagenet_wnids())
    assert len(wnids) == 1000
    assert wnids == sorted(wnids)
    names = sorted(str(number) for number in range(1000))  # as text: 0, 1, 10, 100, ...
    assert columns_of(names, wnids, 1000, "m") == [int(name) for name in names]
    with pytest.raises(SemabenchError, match="does not know 999 of"):
        columns_of(names[:999], wnids, 1000, "m")


@pytest.mark.parametrize(
    ("theirs", "known", "message"),
    [
        (["a", "z", "q"], ["a", "b"], r"m does not know 2 of the dataset's 3 classes: z, q \("),
        (["a"], None, "m has 2 classes but the dataset has 1"),
        (["a"], ["b"], "its own are b, ..."),
    ],
)
def test_what_is_not_known_is_refused_by_name(theirs, known, message):
    with pytest.raises(SemabenchError, match=message):
        columns_of(theirs, known, 2, "m")


def test_both_conventions_count_what_a_naive_loop_counts():
    torch.manual_seed(0)
    logits, columns = torch.randn(64, 7), torch.tensor([5, 0, 3])
    labels = torch.randint(-1, 3, (64,))
    own = own_logits(lambda images: images, columns)(logits).argmax(1)
    (_, places), *_ = among_all([(logits, labels)], columns)
    best = logits.argmax(1)
    for row, label, mine, everyone, place in zip(logits, labels, own, best, places, strict=True):
        if label < 0:
            assert place == -1
            continue
        rivals = [float(row[c]) for c in columns.tolist()]
        assert (mine == label) == (rivals[label] == max(rivals))
        assert (everyone == place) == (row[columns[label]] == row.max())
