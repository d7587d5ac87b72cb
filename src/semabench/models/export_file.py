"""Files of a model that run without semabench: torch.export's, ONNX, AOTInductor's."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

TOLERANCE = 1e-3  # of the largest logit
Writer: TypeAlias = Callable[[Any, Path], Callable[[Tensor], Tensor]]


def write_checked(
    model: nn.Module, pixels: int, free: tuple[int, ...], to: str, file: Path
) -> float:
    """Export with some axes free; return how far the logits of the file are from the model's.

    Raises:
        ValueError: by more than ``TOLERANCE``; and whatever an exporter or a runtime raises.
    """
    images = torch.randn(2 if free else 1, 3, pixels, pixels)
    shapes = (dict.fromkeys(free, torch.export.Dim.DYNAMIC),) if free else None
    loaded = _WRITERS[to](torch.export.export(model, (images,), dynamic_shapes=shapes), file)
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


def load_export(model: nn.Module, images: Tensor, to: str) -> Callable[[Tensor], Tensor]:
    """Export a model for images like these, and load the file again; nothing of it stays."""
    with tempfile.TemporaryDirectory() as directory, quiet(), torch.no_grad():
        program = torch.export.export(model, (images,))
        return _WRITERS[to](program, Path(directory) / "model")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
