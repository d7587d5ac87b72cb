"""A trained run as a file that runs without semabench: torch.export's, ONNX, or AOTInductor's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from semabench.config.schema import MIN_RESOLUTION
from semabench.errors import SemabenchError, first_line
from semabench.evaluation.schema import TargetConfig
from semabench.evaluation.target import EvalTarget, from_run
from semabench.files import atomic_path, atomic_write
from semabench.models.export_file import quiet, write_checked
from semabench.models.resolution import set_resolution
from semabench.progress import said_if_slow

SUFFIXES = {"torch-export": ".pt2", "onnx": ".onnx", "aoti": ".aoti.pt2"}


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its logits are from the model's, relative to the largest."""

    file: Path
    takes: str
    difference: float


def export(
    run: Path,
    to: str,
    resolution: int | None = None,
    dynamic: bool = False,
    out: Path | None = None,
    weights: str = "auto",
) -> Exported:
    """Write a run's model for the CPU, load the file again and compare its logits.

    The file takes normalised images (B, 3, H, W) float32 as "images" and gives "logits". Beside it
    FILE.json holds classes, mean and std, the sizes that it takes and the difference.

    Args:
        run: directory of a run, or a checkpoint.
        to: "torch-export", "onnx" or "aoti".
        resolution: of its images in pixels; that of training if None.
        dynamic: take any batch, of images of any size where the trace of the model holds for it
            (windows that the grid shrinks make another one); else one image of this resolution.
        out: the file; ``export/<model>-<resolution><suffix>`` where the run's results are if None.
        weights: ``model``, ``ema``, or ``auto``: the averaged ones where there are any.

    Raises:
        SemabenchError: no such run or weights, a model that cannot be exported so, a package that
            is missing, or logits that differ by more than ``TOLERANCE``: an earlier file stays.
    """
    if resolution is not None and resolution < MIN_RESOLUTION:
        raise SemabenchError(f"--resolution must be at least {MIN_RESOLUTION}, not {resolution}.")
    target = from_run(TargetConfig(checkpoint=str(run), weights=weights))
    name = target.fields["model"]
    pixels = target.fields["train_resolution"] if resolution is None else resolution
    set_resolution(target.model, pixels)
    model = target.model.eval().requires_grad_(False)
    home = target.run_dir or target.output_dir
    file = out or home / "export" / f"{name.replace('/', '_')}-{pixels}{SUFFIXES[to]}"

    axes = ((0, 2, 3), (0,)) if dynamic else ((),)  # any batch and size, or any batch at least
    with atomic_path(file) as partial, quiet(), said_if_slow(f"exporting {name} at {pixels} px"):
        for number, free in enumerate(axes, start=1):
            try:
                difference = write_checked(model, pixels, free, to, partial)
                break
            except OSError:  # a full disk, which atomic_path tells of
                raise
            except ModuleNotFoundError as error:
                raise SemabenchError(
                    f"--to {to} needs {error.name}: pip install 'semabench[export]'."
                ) from error
            except Exception as error:  # whatever an exporter or a runtime finds
                if number < len(axes):
                    continue
                advice = "leave --dynamic out" if dynamic else "try another --to"
                what = f"{name} cannot be exported to {to}"
                raise SemabenchError(f"{what} ({first_line(error)[:200]}): {advice}.") from error
        batch = "any batch" if free else "one image"
        takes = f"{batch} of any size" if 2 in free else f"{batch} of {pixels} px"
        atomic_write(file.with_name(file.name + ".json"), _about(target, takes, difference))
    return Exported(file, takes, difference)


def _about(target: EvalTarget, takes: str, difference: float) -> str:
    told = {
        "model": target.fields["model"],
        "checkpoint": target.fields["checkpoint"],
        "weights": target.fields["weights"],
        "takes": takes,
        "mean": target.mean,
        "std": target.std,
        "classes": target.classes,
        "largest_difference": difference,
    }
    return json.dumps(told, indent=2) + "\n"
