"""Let something happen to a run, and look at what it says, keeps and goes on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.apps import run_here
from semabench.training.checkpoint import read_checkpoint
from semabench.training.module import Classifier

SHORT = ("experiment=stress", "logger=csv")


def last(root: Path) -> Path:
    (path,) = root.rglob("last.ckpt")
    return path


def error_line(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("error:")]
    return line


def at_step(patch: pytest.MonkeyPatch, step: int, do: Callable[[], None]) -> None:
    """Let something happen in this process before a step, once."""
    before = Classifier.on_train_batch_start
    done: list[int] = []

    def start_batch(self: Classifier, *rest: object) -> None:
        if self.global_step == step and not done:
            done.append(step)
            do()
        before(self, *rest)  # type: ignore[arg-type]

    patch.setattr(Classifier, "on_train_batch_start", start_batch)


def assert_it_goes_on(arguments: tuple[str, ...], cwd: Path, capfd, patch, trained) -> None:
    """The next start continues, to the weights of the run that nothing happened to."""
    capfd.readouterr()
    assert run_here("train.py", *arguments, cwd=cwd, patch=patch) == 0
    assert "resuming" in capfd.readouterr().out
    (root,) = [Path(a.partition("=")[2]) for a in arguments if a.startswith("output_root=")]
    found = read_checkpoint(last(root))["state_dict"]
    expected = read_checkpoint(trained.run_dir / "checkpoints" / "last.ckpt")["state_dict"]
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
