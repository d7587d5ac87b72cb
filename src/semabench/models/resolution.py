"""Look at the token mixers of a built model; bring it to another window or resolution."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from semabench.errors import SemabenchError, first_line
from semabench.mixers import Mixer, WindowedMixer
from semabench.mixers.base import DepthwiseConv
from semabench.mixers.ssm import Scan
from semabench.models.flops import without_data
from semabench.models.staged import StagedModel
from semabench.models.vim import Vim
from semabench.ops import depthwise_conv_backend
from semabench.processes import global_rank
from semabench.progress import note


def mixer_name(model: nn.Module) -> str | None:
    """Return the name of a model's mixer; None for models whose mixer is not ours."""
    return next((mixer.name for mixer in model.modules() if isinstance(mixer, Mixer)), None)


def backend_name(model: nn.Module, device: torch.device | None = None) -> str:
    """Return the op backend that a model's mixers run on ``device``.

    For models of timm's, whose attention has a switch, "sdpa" (PyTorch's fused attention) or
    "unfused"; "torch" for a model without any choice.
    """
    names = {
        module.resolved_backend(device)
        for module in model.modules()
        if isinstance(module, Mixer | Scan)
    }
    convolutions = [module for module in model.modules() if isinstance(module, DepthwiseConv)]
    for one in convolutions:
        if depthwise_conv_backend(one.backend, device, one.weight.dtype) == "triton":
            names.add("triton")
    if not names:
        fused = {module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}
        names = {"sdpa" if value else "unfused" for value in fused}
    return "+".join(sorted(names)) or "torch"


def set_window_size(model: nn.Module, window_size: int | tuple[int, int]) -> None:
    """Give all windows of a built model another size; no weight depends on it.

    Raises:
        SemabenchError: the model has no windows, or the size is not positive.
    """
    windowed = [mixer for mixer in model.modules() if isinstance(mixer, WindowedMixer)]
    if not windowed:
        kind = f"its mixer is {mixer_name(model)}" if mixer_name(model) else type(model).__name__
        raise SemabenchError(f"The model has no windows ({kind}): leave window_size out.")
    for mixer in windowed:
        mixer.window_size = window_size


def set_resolution(model: nn.Module, resolution: int) -> None:
    """Prepare a model for images of another size, before it is evaluated on them.

    Nothing to do for ours: Vim interpolates its table of positions as it runs. Other models with
    tables of positions resample them by timm's ``set_input_size``, always from those that they
    came with: the way to a resolution makes no difference. Swin's windows keep their size, as when
    a model is built for another one. Of models that fix their size, one image on the CPU tells.

    Args:
        model: any model of ``build_model``'s.
        resolution: height and width in pixels.

    Raises:
        SemabenchError: the model cannot take images of this size.
    """
    if isinstance(model, StagedModel | Vim):
        return
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    name = config.get("architecture", type(model).__name__)
    try:
        if hasattr(model, "set_input_size"):
            _resample(model, resolution)
        elif config.get("fixed_input_size"):
            # On the CPU: an index out of range goes unseen on meta, and poisons a CUDA device.
            shadow = copy.deepcopy(model).cpu().eval()
            with torch.no_grad():
                shadow(torch.zeros(1, getattr(model, "in_chans", 3), resolution, resolution))
    except FAILURES as error:
        reason = first_line(error)
        raise SemabenchError(f"{name} cannot be run at {resolution} px: {reason}") from error


#: What models raise at a size that they cannot take.
FAILURES = AssertionError, IndexError, RuntimeError, TypeError, ValueError


def _name(model: nn.Module) -> str:
    told = getattr(model, "pretrained_cfg", None) or {}
    return str(told.get("architecture", type(model).__name__))


def try_size(
    model: nn.Module, resolution: int, batch: int, classes: int | None, train: bool
) -> None:
    """Run a model without its data, to learn before a run starts what it cannot take.

    Forward, and in training backward, at the shapes of the run; scans are left out, for they take
    any length. What a model does with real data alone is not found out.

    Args:
        model: as built; it is left as it is.
        resolution: height and width in pixels.
        batch: images that go through it at once.
        classes: that its head must have; None where it has no head.
        train: in training mode, where BatchNorm needs more than one value a channel.

    Raises:
        SemabenchError: it fails, or gives something else than (batch, classes).
    """
    name = _name(model)
    shape = (batch, getattr(model, "in_chans", 3), resolution, resolution)
    what = f"{'trained' if train else 'run'} at {resolution} px, {batch} image(s) at once"
    images = torch.zeros(shape, device="meta", dtype=next(model.parameters()).dtype)
    try:
        with torch.set_grad_enabled(train):
            shadow = without_data(model).train(train)
            for module in shadow.modules():
                if isinstance(module, Scan):
                    module.forward = _shape_of_scan  # type: ignore[method-assign, assignment]
            found = shadow(images)
            if train and isinstance(found, Tensor):
                found.sum().backward()
    except NotImplementedError:  # some operation looks at its data
        return
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise SemabenchError(f"{name} cannot be {what}: {first_line(error)}") from error
    if classes is None:
        return
    if not isinstance(found, Tensor) or found.shape != (batch, classes):
        told = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise SemabenchError(
            f"{name}, {what}, gives {told}, not {(batch, classes)}: leave the option that changes "
            "its head out."
        )


def _shape_of_scan(u: Tensor, delta: Tensor, *rest: Tensor) -> Tensor:
    return delta + u.mean()


def seen_pixels(model: nn.Module, resolution: int) -> int:
    """Return how many rows of square images a model sees: some leave out what no patch covers.

    From the gradient, in a copy, of an image of noise. Ours see all, and so does any at a multiple
    of 32 that its patches divide, which is not tried.

    Raises:
        SemabenchError: it cannot be run at that size.
    """
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    sides = patch if isinstance(patch, tuple) else (patch or 1,)
    if isinstance(model, StagedModel | Vim) or not any(resolution % n for n in (32, *sides)):
        return resolution
    weight = next(model.parameters())
    if weight.is_meta:
        return resolution
    shape = (1, getattr(model, "in_chans", 3), resolution, resolution)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator).to(weight.device, weight.dtype)
    image.requires_grad_()
    probe = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in probe.parameters():
            if parameter.ndim < 2:  # what begins at zero would see nothing
                parameter.fill_(0.5)
            elif not parameter.any():
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.02 * drawn)
    try:
        with torch.enable_grad():
            logits = probe(image).float()
        (gradient,) = torch.autograd.grad(logits.square().sum(), image, allow_unused=True)
    except torch.OutOfMemoryError:
        return resolution
    except FAILURES as error:  # which data alone can show
        if "does not require grad" in str(error):
            return resolution
        what = f"{_name(model)} cannot be run at {resolution} px"
        raise SemabenchError(f"{what}: {first_line(error)}") from error
    if gradient is None:
        return resolution
    rows = gradient.abs().amax(dim=(0, 1, 3)).nonzero()
    return int(rows.max()) + 1 if len(rows) else resolution


def say_unseen(model: nn.Module, resolution: int) -> int | None:
    """Say where a model leaves out the rim of images; return what it sees, None if all."""
    seen = seen_pixels(model, resolution)
    if seen == resolution:
        return None
    name = _name(model)
    if global_rank() == 0:
        note(
            f"{name} sees {seen} of {resolution} px in height and width: no patch covers the rest."
        )
    return seen


@dataclass(frozen=True)
class _Origin:
    """The tables of a model as it came, and what they were last resampled to."""

    size: Any  # of the images it was built for, as timm has it
    tables: dict[str, Tensor]
    resampled: dict[str, Tensor]

    def still_holds(self, parameters: dict[str, Tensor]) -> bool:
        """Return whether nobody has trained or loaded the tables since."""
        now = ((parameters.get(name), told) for name, told in self.resampled.items())
        return all(x is not None and torch.equal(x, told.to(x.device)) for x, told in now)


_ORIGINS: WeakKeyDictionary[nn.Module, _Origin] = WeakKeyDictionary()


def _resample(model: Any, resolution: int) -> None:
    """Call ``set_input_size``, which replaces the parameters that it resamples."""
    windows = _windows(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    origin = _ORIGINS.pop(model, None)
    if origin is not None and origin.still_holds(_parameters(model)):
        model.set_input_size(img_size=origin.size, **windows)
        with torch.no_grad():
            for name, table in origin.tables.items():
                model.get_parameter(name).copy_(table)
        size = origin.size
    before = _parameters(model)
    model.set_input_size(img_size=(resolution, resolution), **windows)
    after = _parameters(model)
    changed = [name for name, x in before.items() if x.data_ptr() != after[name].data_ptr()]
    if changed and size is not None:
        _ORIGINS[model] = _Origin(
            size,
            {name: before[name] for name in changed},
            {name: after[name].clone() for name in changed},
        )


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _windows(model: Any) -> dict[str, Any]:
    """Return Swin's window as an argument of ``set_input_size``: timm would scale it instead.

    It is that of the first stage, whose grid is the last to become smaller than it.
    """
    if "window_size" not in inspect.signature(model.set_input_size).parameters:
        return {}
    blocks = getattr(next(iter(getattr(model, "layers", [])), None), "blocks", None)
    window = getattr(blocks[0], "window_size", None) if blocks else None
    return {} if window is None else {"window_size": tuple(window)}


def takes_any_size(model: nn.Module) -> bool:
    """Tell whether images of any size go through a model as it is, training included."""
    if isinstance(model, StagedModel | Vim):
        return True
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    return not (hasattr(model, "set_input_size") or config.get("fixed_input_size"))
