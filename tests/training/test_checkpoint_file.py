"""A damaged checkpoint is told from a sound one, and nothing in it is executed."""

from __future__ import annotations

import os

import pytest
import torch

from helpers.checkpoint_makers import save
from semabench.errors import SemabenchError
from semabench.training.checkpoint import read_checkpoint


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_cut_checkpoint_is_named_as_damaged(tmp_path, keep):
    path = tmp_path / "last.ckpt"
    save(path, weights=torch.zeros(1000))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SemabenchError, match=r"last\.ckpt is damaged"):
        read_checkpoint(path)


def test_one_wrong_byte_among_the_weights_is_damage(tmp_path):
    path = tmp_path / "last.ckpt"
    save(path, weights=torch.full((1000,), 3.0))
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((9,), 3.0).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(SemabenchError, match=r"is damaged \(the sum of .* differs"):
        read_checkpoint(path)


def test_a_file_that_is_no_checkpoint_is_told_as_such(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00.")
    with pytest.raises(SemabenchError, match="no checkpoint of train"):
        read_checkpoint(path)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/executed",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(SemabenchError, match="damaged"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()
