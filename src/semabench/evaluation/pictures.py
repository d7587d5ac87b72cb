"""Figures for the eye, of one trained run: what it loses as images grow, and what it looks at.

``semabench show RUN`` writes four PNGs into ``<run>/pictures``; `results.report` shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from semabench.data.augment.batch import Normalize
from semabench.data.image import EvalTransform
from semabench.data.loader import create_eval_loader
from semabench.errors import SemabenchError
from semabench.evaluation.influence import influence, side_of_half
from semabench.evaluation.schema import TargetConfig
from semabench.evaluation.target import EvalTarget, load_target
from semabench.files import atomic_path
from semabench.mixers import Mixer
from semabench.models import set_resolution
from semabench.results.report import PICTURES

MOST_LOST = 6  # images shown
MOST_CLASSES = 20  # of a confusion matrix; of more, those that are confused most
FIELD_IMAGES = 4  # over which a receptive field is averaged


def show(
    run: Path, resolutions: Sequence[int], image: Path | None = None, out: Path | None = None
) -> list[Path]:
    """Draw predictions, confusion, receptive fields and influence of a run's model.

    Args:
        run: directory of a run, or a checkpoint.
        resolutions: of its images, ascending; the first validation set must be rendered at each.
        image: whose influence is shown; the first validation image that is right if None.
        out: folder; ``pictures`` in the run's directory if None.

    Raises:
        SemabenchError: no such run, image or rendered size; fewer than two resolutions.
    """
    sizes = sorted(set(resolutions))
    if len(sizes) < 2:
        raise SemabenchError("--resolutions needs two sizes at least: 128 224.")
    config = TargetConfig(checkpoint=str(run), resolutions=sizes, channels_last=False)
    target = load_target(config, torch.device("cpu"), "32-true")
    directory = out or (target.run_dir or target.output_dir) / PICTURES
    passes = [_predict(target, size) for size in sizes]
    chosen = _encoded(target, image, passes)
    written = [
        _save(_lost(target, passes), directory / "predictions.png"),
        _save(_confusion(target, passes), directory / "confusion.png"),
        _save(_fields(target, sizes), directory / "receptive-field.png"),
    ]
    mixers = _last_mixers(target.model)
    if mixers:
        written.append(
            _save(_influence(target, mixers, sizes, chosen), directory / "influence.png")
        )
    return written


@dataclass(frozen=True)
class _Pass:
    """One resolution: the probability of each class (N, classes), and the labels (N,)."""

    resolution: int
    chances: Tensor
    labels: Tensor

    @property
    def best(self) -> Tensor:
        """The predicted classes, (N,)."""
        return self.chances.argmax(dim=1)

    @property
    def right(self) -> Tensor:
        """Which images are right, (N,)."""
        return self.best == self.labels


def _loader(target: EvalTarget, resolution: int) -> Any:
    workers = target.data.num_workers
    return create_eval_loader(target.data, resolution, batch_size=32, num_workers=workers)


def _predict(target: EvalTarget, resolution: int) -> _Pass:
    set_resolution(target.model, resolution)
    loader, run = _loader(target, resolution), target.forward()
    columns = torch.tensor(target.columns(loader.classes))
    chances, labels = [], []
    batches: Iterable[tuple[Tensor, Tensor]] = track(
        loader, description=f"{resolution} px", total=len(loader), transient=True
    )
    for images, truth in batches:
        chances.append(run(images).index_select(1, columns).softmax(dim=1)[truth >= 0])
        labels.append(truth[truth >= 0])
    return _Pass(resolution, torch.cat(chances), torch.cat(labels))


def _pixels(target: EvalTarget, resolution: int, wanted: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Return some validation images as the model sees them, (R, R, 3)."""
    found: dict[int, NDArray[np.uint8]] = {}
    begun = 0
    for images, labels in _loader(target, resolution):
        for number in wanted:
            if begun <= number < begun + len(labels):
                found[number] = images[number - begun].permute(1, 2, 0).numpy()
        begun += len(labels)
        if len(found) == len(set(wanted)):
            break
    return [found[number] for number in wanted]


def _encoded(target: EvalTarget, image: Path | None, passes: Sequence[_Pass]) -> Any:
    """Return what makes the shown image's pixels at a resolution."""
    if image is None:
        right = torch.stack([one.right for one in passes]).float().sum(dim=0)
        number = int(right.argmax())
        return lambda resolution: _pixels(target, resolution, [number])[0]
    try:
        data = image.read_bytes()
        made = {
            one.resolution: EvalTransform(
                one.resolution, target.data.crop_pct, target.data.interpolation
            )(data)
            for one in passes
        }
    except Exception as error:
        raise SemabenchError(f"cannot read {image}: {error}.") from error
    return made.__getitem__


def _axes(rows: int, columns: int, side: float = 2.0, **more: Any) -> tuple[Any, Any]:
    from matplotlib import figure as mpl

    made = mpl.Figure(figsize=(side * columns, side * rows + 0.6), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False, **more)


def _bare(axes: Any, title: str = "", colour: str = "#222222") -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8, color=colour)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _lost(target: EvalTarget, passes: Sequence[_Pass]) -> Any:
    """Draw images that are right somewhere and wrong at the largest size, the surest loss first."""
    labels, last = passes[0].labels, passes[-1]
    own = torch.stack([one.chances.gather(1, labels[:, None])[:, 0] for one in passes])
    before = torch.stack([one.right for one in passes[:-1]]).any(dim=0)
    score = torch.where(before & ~last.right, own[:-1].max(dim=0).values - own[-1], -1.0)
    order = score.argsort(descending=True)[:MOST_LOST]
    numbers = [int(n) for n in order if score[n] > 0] or [int(own[-1].argmin())]
    names = [name.split(",")[0] for name in _loader(target, last.resolution).names]
    made, grid = _axes(len(numbers), len(passes))
    for column, one in enumerate(passes):
        for row, (number, pixels) in enumerate(
            zip(numbers, _pixels(target, one.resolution, numbers), strict=True)
        ):
            axes = grid[row][column]
            axes.imshow(pixels)
            chance, best = one.chances[number].max(dim=0)
            right = bool(one.right[number])
            head = f"{one.resolution} px\n" if row == 0 else ""
            said = f"{head}{names[int(best)]}, {100 * chance:.0f} %"
            _bare(axes, said, "#1a7f37" if right else "#cf222e")
    share = 100 * float((before & ~last.right).float().mean())
    title = f"Lost at {last.resolution} px: {share:.1f} % of {len(labels):,} images"
    made.suptitle(f"{title} ({target.fields['model']})", fontsize=10)
    return made


def _confusion(target: EvalTarget, passes: Sequence[_Pass]) -> Any:
    """Draw which classes are taken for which, at the smallest and the largest size."""
    names = [name.split(",")[0] for name in _loader(target, passes[0].resolution).names]
    tables = []
    for one in (passes[0], passes[-1]):
        table = torch.zeros(len(names), len(names))
        table.index_put_((one.labels, one.best), torch.ones(len(one.labels)), accumulate=True)
        tables.append(table / table.sum(dim=1, keepdim=True).clamp(min=1))
    wrong = sum(table.sum(dim=1) + table.sum(dim=0) - 2 * table.diagonal() for table in tables)
    assert isinstance(wrong, Tensor)
    kept = wrong.argsort(descending=True)[:MOST_CLASSES].sort().values
    made, grid = _axes(1, 2, side=max(3.4, 0.28 * len(kept) + 1.2))
    for axes, table, one in zip(grid[0], tables, (passes[0], passes[-1]), strict=True):
        part = table[kept][:, kept]
        image = axes.imshow(part.numpy(), cmap="Blues", vmin=0, vmax=1)
        shown = [names[int(k)][:24] for k in kept]
        axes.set_xticks(range(len(kept)), shown, rotation=90, fontsize=7)
        axes.set_yticks(range(len(kept)), shown, fontsize=7)
        accuracy = 100 * float(one.right.float().mean())
        axes.set_title(f"{one.resolution} px, top-1 {accuracy:.1f} %", fontsize=9)
    made.colorbar(image, ax=grid[0].tolist(), shrink=0.7, label="share of the class's images")
    some = "" if len(kept) == len(names) else f", the {len(kept)} most confused classes"
    made.suptitle(f"True class (down) taken for (across){some}", fontsize=10)
    return made


def _fields(target: EvalTarget, sizes: Sequence[int]) -> Any:
    """Draw how much the last grid's centre follows each pixel, over some validation images."""
    made, grid = _axes(1, len(sizes), side=2.6)
    normalize = Normalize(target.mean, target.std)
    for axes, size in zip(grid[0], sizes, strict=True):
        set_resolution(target.model, size)
        pixels = np.stack(_pixels(target, size, range(FIELD_IMAGES)))
        images = normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        field = _receptive_field(target.model, images)
        side = side_of_half(field, (size // 2, size // 2))
        relative = (field / field.max()).clamp(min=1e-4).log10()
        axes.imshow(relative.numpy(), cmap="magma", vmin=-4, vmax=0)
        _bare(axes, f"{size} px: half of it within {side} px")
    title = "Effective receptive field of the last grid's centre, log scale over four decades"
    made.suptitle(f"{title}\n({target.fields['model']}, {FIELD_IMAGES} images)", fontsize=9)
    return made


def _receptive_field(model: Any, images: Tensor) -> Tensor:
    """Return the mean influence of each pixel on the centre of the last features, (R, R)."""

    def features(x: Tensor) -> Tensor:
        found: Tensor = model.forward_features(x)
        channels = model.num_features
        if found.ndim == 4 and found.shape[1] == channels != found.shape[-1]:
            return found.permute(0, 2, 3, 1)
        return found

    with torch.no_grad():
        shape = features(images[:1]).shape
    centre = torch.tensor([side // 2 for side in shape[1:-1]])
    fields = [influence(features, images[k : k + 1], centre, 1)[0] for k in range(len(images))]
    return torch.stack(fields).square().mean(dim=0).sqrt()


def _last_mixers(model: nn.Module) -> list[tuple[str, Mixer]]:
    """Return the last mixer of each stage, by name."""
    found: dict[str, tuple[str, Mixer]] = {}
    for path, module in model.named_modules():
        if isinstance(module, Mixer):
            stage = ".".join(path.split(".")[:2])
            found[stage] = path, module
    return list(found.values())


def _influence(
    target: EvalTarget, mixers: Sequence[tuple[str, Mixer]], sizes: Sequence[int], pixels: Any
) -> Any:
    """Draw, over an image, what its centre's token follows in the last mixer of each stage."""
    made, grid = _axes(len(sizes), 1 + len(mixers))
    normalize = Normalize(target.mean, target.std)
    for row, size in enumerate(sizes):
        set_resolution(target.model, size)
        image = pixels(size)
        images = normalize(torch.tensor(image).permute(2, 0, 1)[None])
        heard = _inputs_of(target.model, mixers, images)
        grid[row][0].imshow(image)
        _bare(grid[row][0], f"{size} px")
        for axes, (stage, (path, module)) in zip(grid[row][1:], enumerate(mixers, 1), strict=True):
            tokens = heard[path]
            _, height, width, _ = tokens.shape
            centre = torch.tensor([height // 2, width // 2])
            found = influence(module, tokens, centre, 3)[0]
            relative = (found / found.max()).clamp(min=1e-3).log10().numpy()
            axes.imshow(image, alpha=0.35)
            extent = (-0.5, size - 0.5, size - 0.5, -0.5)
            axes.imshow(relative, cmap="magma", alpha=0.75, extent=extent, vmin=-3, vmax=0)
            _bare(axes, f"stage {stage}, {height} × {width}")
    names = ", ".join(sorted({type(module).__name__ for _, module in mixers}))
    title = "What the centre's token follows: ‖∂ output / ∂ token‖, log scale over three decades"
    made.suptitle(f"{title}\n({target.fields['model']}, mixer {names})", fontsize=9)
    return made


def _inputs_of(
    model: nn.Module, mixers: Sequence[tuple[str, Mixer]], images: Tensor
) -> dict[str, Tensor]:
    """Return what each mixer is given, (1, H, W, C), by its path."""
    heard: dict[str, Tensor] = {}

    def hear(path: str) -> Any:
        return lambda _, inputs: heard.update({path: inputs[0].detach()})

    hooks = [module.register_forward_pre_hook(hear(path)) for path, module in mixers]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return heard


def _save(made: Any, path: Path) -> Path:
    try:
        with atomic_path(path) as partial:
            made.savefig(partial, format="png", dpi=110)
    except OSError as error:
        raise SemabenchError(f"cannot write {path}: {error.strerror or error}.") from error
    return path
