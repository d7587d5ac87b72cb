"""A trained run as a file that runs without semabench: torch.export's, ONNX, or AOTInductor's."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from semabench.config.schema import MIN_RESOLUTION
from semabench.errors import SemabenchError, first_line
from semabench.evaluation.schema import TargetConfig
from semabench.evaluation.target import EvalTarget, from_run
from semabench.files import atomic_path, atomic_write
from semabench.models.resolution import set_resolution
from semabench.progress import said_if_slow

SUFFIXES = {"torch-export": ".pt2", "onnx": ".onnx", "aoti": ".aoti.pt2"}
TOLERANCE = 1e-3  # of the largest logit
Writer: TypeAlias = Callable[[Any, Path], Callable[[Tensor], Tensor]]


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
    with atomic_path(file) as partial, _quiet(), said_if_slow(f"exporting {name} at {pixels} px"):
        for number, free in enumerate(axes, start=1):
            try:
                difference = _try(model, pixels, free, _WRITERS[to], partial)
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


def _try(model: nn.Module, pixels: int, free: tuple[int, ...], write: Writer, file: Path) -> float:
    """Export with some axes free; return how far the logits of the file are from the model's."""
    images = torch.randn(2 if free else 1, 3, pixels, pixels)
    shapes = (dict.fromkeys(free, torch.export.Dim.DYNAMIC),) if free else None
    loaded = write(torch.export.export(model, (images,), dynamic_shapes=shapes), file)
    trials = [images]
    if free:
        trials += [torch.randn(1, 3, pixels, pixels), torch.randn(3, 3, pixels, pixels)]
    if 2 in free:
        trials += [
            torch.randn(1, 3, pixels + 32, pixels + 48),
            torch.randn(2, 3, 2 * pixels, pixels),
        ]
    differences = []
    for trial in trials:
        with torch.no_grad():
            expected, found = model(trial), loaded(trial)
        if found.shape != expected.shape:
            raise ValueError(f"it gives {tuple(found.shape)}, not {tuple(expected.shape)}")
        differences.append(float((found - expected).abs().max() / expected.abs().max()))
        if not differences[-1] <= TOLERANCE:  # NaN is not, either
            raise ValueError(f"its logits differ by {differences[-1]:.1e} of the largest")
    return max(differences)


def _torch_export(program: Any, file: Path) -> Callable[[Tensor], Tensor]:
    with open(file, "wb") as stream:  # by name it insists on its own suffix
        torch.export.save(program, stream)
    with open(file, "rb") as stream:
        module = torch.export.load(stream).module()
    return lambda images: module(images)


def _onnx(program: Any, file: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime
    import onnxscript  # noqa: F401  which torch's exporter needs

    names: Any = {"input_names": ["images"], "output_names": ["logits"]}
    torch.onnx.export(program, f=file, dynamo=True, external_data=False, verbose=False, **names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told once
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(file, options, providers=providers)
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _aoti(program: Any, file: Path) -> Callable[[Tensor], Tensor]:
    package = file.with_name(file.name + ".pt2")  # the suffix that it insists on
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
        package.replace(file)
        package.symlink_to(file.name)
        run = torch._inductor.aoti_load_package(str(package))
    finally:
        package.unlink(missing_ok=True)
    return lambda images: run(images)


_WRITERS: dict[str, Writer] = {
    "torch-export": _torch_export,
    "onnx": _onnx,
    "aoti": _aoti,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what exporters tell of every pass that they make."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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
