"""Images whose labels a list beside them tells."""

import json

import pytest

from helpers.image_makers import jpeg
from semabench.data.sources import find_images
from semabench.errors import SemabenchError


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(jpeg(seed=k))


def test_a_csv_tells_labels_and_wordnet_ids_come_first(tmp_path):
    write(tmp_path, "images/1.jpg", "images/2.jpg", "images/3.jpg")
    text = "file_name,label,wnid\nimages/2.jpg,7,n01440764\nimages/1.jpg,9,n02102040\n"
    (tmp_path / "metadata.csv").write_text(text + "images/3.jpg,7,n01440764\n")
    images = find_images(tmp_path, "val")  # a test set: no val/ in it
    assert images.classes == ["n01440764", "n02102040"]
    assert images.names[0] == "tench, Tinca tinca"
    assert images.paths == ["images/2.jpg", "images/3.jpg", "images/1.jpg"]
    assert images.labels.tolist() == [0, 0, 1]
    assert images.read(2) == jpeg(seed=0)


def test_numbers_are_in_their_order_and_json_lines_serve_too(tmp_path):
    write(tmp_path / "val", "a.jpg", "b.jpg", "c.jpg")
    rows = [{"file_name": n, "label": k} for n, k in (("a.jpg", 10), ("b.jpg", 2), ("c.jpg", 0))]
    (tmp_path / "val" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    images = find_images(tmp_path, "val")
    assert images.classes == ["0", "2", "10"]
    assert images.paths == ["c.jpg", "b.jpg", "a.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,label\nnowhere.jpg,1\n", r"names .*nowhere\.jpg, which cannot be read"),
        ("file_name,caption\na.jpg,a cat\n", "row 1 of .* lacks file_name, or a label"),
        ("file_name,label\na.jpg,\n", "lacks file_name, or a label"),
        ("file_name,label\n", "names no image"),
        ("file_name,label\na.jpg,1\na.jpg,2\n", "row 2 of .* names a.jpg once more"),
        ("file_name,label\n../a.jpg,1\n", "leads out of the folder"),
        ("file_name,label\n.,1\n", "which cannot be read: Is a directory"),
    ],
)
def test_lists_that_do_not_fit_are_told(tmp_path, text, message):
    write(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(SemabenchError, match=message):
        find_images(tmp_path, "val")
