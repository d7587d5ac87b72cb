"""The models there are: parameters and multiply-adds counted here, and what was published."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console
from rich.progress import track

from semabench.config.schema import MIN_RESOLUTION
from semabench.errors import SemabenchError
from semabench.models import build_model, mixer_name, model_names
from semabench.models.build import PUBLISHED
from semabench.models.flops import count_gmacs, count_parameters
from semabench.results.text_table import TextTable, print_table


def print_models(names: Sequence[str], resolution: int, num_classes: int) -> None:
    """Print one row a model: parameters in millions, and GMACs for one image of this resolution.

    Published top-1 accuracies (ImageNet-1k, 224 px) stand beside them with the recipe that gave
    them, where it is one of ``conf/recipe``.

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
    rows = []
    for name in track(list(names) or model_names(), description="counting", transient=True):
        with torch.device("meta"):
            model = build_model(name, num_classes=num_classes, resolution=resolution, options={})
        told = PUBLISHED.get(name.split(".")[0])
        rows.append(
            [
                name,
                mixer_name(model) or "-",
                f"{count_parameters(model) / 1e6:.2f}",
                f"{count_gmacs(model, resolution):.3f}",
                f"{told.top1:.1f}" if told else "",
                (told.recipe or "its own") if told else "",
            ]
        )
    header = ["model", "mixer", "params (M)", "GMACs", "published top-1", "by recipe"]
    title = f"{resolution} px, {num_classes} classes"
    print_table(TextTable(title, header, rows, words=2), Console())
