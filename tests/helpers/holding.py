#!/usr/bin/env python
"""train.py, waiting at given steps for what shall befall it: `holding.py train.py ARGUMENTS`.

SEMABENCH_HOLD names a directory; HOLD_AT lists steps. The first start that comes to such a step
leaves the file `<step>.<rank>` there and waits until a signal comes or the process is killed.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

from semabench.training.signals import StopOnSignal

look = StopOnSignal.on_train_batch_end


def hold(self: StopOnSignal, trainer: Any, *arguments: Any) -> None:
    marker = Path(os.environ["SEMABENCH_HOLD"]) / f"{trainer.global_step}.{trainer.global_rank}"
    if str(trainer.global_step) in os.environ["HOLD_AT"].split(",") and not marker.exists():
        marker.touch()
        while not self.received:
            time.sleep(0.02)
    look(self, trainer, *arguments)


def install() -> None:
    """Let the training of this process wait."""
    StopOnSignal.on_train_batch_end = hold  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
