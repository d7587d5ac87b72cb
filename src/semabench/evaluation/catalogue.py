"""The models there are, with parameters and multiply-adds counted here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from semabench.config import MIN_RESOLUTION
from semabench.errors import SemabenchError
from semabench.evaluation.flops import count_gmacs, count_parameters
from semabench.models import build_model, mixer_name, model_names


def print_models(names: Sequence[str], resolution: int, num_classes: int) -> None:
    """Print one row a model: parameters in millions, and GMACs for one image of this resolution.

    Args:
        names: timm names; none: all of semabench's own.

    Raises:
        SemabenchError: an unknown name, or a resolution below 32.
    """
    if resolution < MIN_RESOLUTION:
        raise SemabenchError(
            f"--resolution {resolution} is too small: the smallest is {MIN_RESOLUTION} pixels."
        )
    if num_classes < 1:
        raise SemabenchError(f"--num-classes must be at least 1, not {num_classes}.")
    table = Table(title=f"{resolution} px, {num_classes} classes")
    for heading in ("model", "mixer", "params (M)", "GMACs"):
        table.add_column(heading, justify="left" if heading in ("model", "mixer") else "right")
    for name in track(list(names) or model_names(), description="counting", transient=True):
        with torch.device("meta"):
            model = build_model(name, num_classes=num_classes, resolution=resolution, options={})
        params = count_parameters(model) / 1e6
        gmacs = count_gmacs(model, resolution)
        table.add_row(name, mixer_name(model) or "-", f"{params:.2f}", f"{gmacs:.3f}")
    Console().print(table)
