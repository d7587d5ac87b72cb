"""Classes are matched by name: in any order, some of them, and never by their count."""

import pytest
import torch
from timm.data.imagenet_info import ImageNetInfo

from semabench.errors import SemabenchError
from semabench.evaluation.classes import among_all, columns_of, imagenet_wnids, own_logits, wnids_of


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


def test_words_of_imagenet_are_its_wordnet_ids():
    info = ImageNetInfo("imagenet-1k")
    wnids = info.label_names()
    described = [info.label_name_to_description(wnid) for wnid in wnids]
    assert described.count("crane") == 2
    assert wnids_of(described) == wnids
    renamed = [*described]
    renamed[described.index("crane", 200)] = "crane2"
    assert wnids_of(renamed) == wnids
    assert wnids_of(["crane"]) == ["crane"]  # which of the two is not told
    assert wnids_of(["tench", "a house of mine"]) == ["tench", "a house of mine"]


def test_classes_named_by_words_are_matched_only_where_they_are_not_known(capsys):
    wnids = list(imagenet_wnids())
    theirs = ["English springer", "tench"]
    assert columns_of(theirs, wnids, 1000, "m") == [wnids.index("n02102040"), 0]
    assert "matched by the words of ImageNet's: English springer is n02102040" in " ".join(
        capsys.readouterr().err.split()
    )
    assert columns_of(["n01440764"], ["mouse", "tench, Tinca tinca"], 2, "m") == [1]
    assert columns_of(["tench"], ["goldfish", "tench"], 2, "m") == [1]  # as they are
    with pytest.raises(SemabenchError, match="does not know 1 of the dataset's 2"):
        columns_of(["tench", "a house"], ["tench"], 1, "m")
