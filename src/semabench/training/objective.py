"""What a search for hyper-parameters maximises: the accuracy at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

from semabench.training.run import FINISHED


def objective(run_dir: Path) -> float | None:
    """Return the validation top-1 (%) after the last epoch, of averaged weights if there are any.

    Not that of the best epoch, which would be chosen by the number it reports. On a held-out part
    of the training pictures (``data.holdout``) it may choose hyper-parameters; on the validation
    set it may not. ``None``: the run is not finished.
    """
    path = run_dir / FINISHED
    if not path.exists():  # on another process than the one that writes it
        return None
    metrics = json.loads(path.read_text())["metrics"]
    return metrics.get("val_ema/top1", metrics.get("val/top1"))
