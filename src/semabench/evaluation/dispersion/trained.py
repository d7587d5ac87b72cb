"""Dispersion in a trained model: the q, k and v of its own layers, over its validation pictures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from rich.progress import track
from timm.models.vision_transformer import Attention as TimmAttention
from torch import Tensor, nn

from semabench.data.loader import EvalLoader, create_eval_loader
from semabench.data.normalize import Normalize
from semabench.errors import SemabenchError
from semabench.evaluation.dispersion.schema import DispersionConfig
from semabench.evaluation.dispersion.statistics import Tally, add_weights, sample_queries
from semabench.evaluation.target import EvalTarget
from semabench.mixers import Mixer, create_mixer, list_mixers
from semabench.models import backend_name, mixer_name, set_resolution
from semabench.models.flops import count_parameters
from semabench.ops.generalized_attention import Kernel, Phi, identity, scaled
from semabench.results.record import Record, git_commit, software_versions
from semabench.training.device import autocast, layout_label

QUERY_SEED = 0  # of the sample of queries: the same positions in every model


def plan_rows(
    config: DispersionConfig,
    target: EvalTarget,
    loader: EvalLoader,
    resolution: int,
    precision: str,
    device: torch.device,
) -> list[Record]:
    """Return a row for each head of each layer at one resolution, as known before it is measured.

    The model is brought to that resolution.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    set_resolution(target.model, resolution)
    row = Record(
        **target.fields,
        measure="dispersion",
        dataset=target.data.name,
        fingerprint=loader.fingerprint,
        n=min(config.images, loader.num_samples),
        resolution=resolution,
        crop_pct=target.data.crop_pct,
        interpolation=target.data.interpolation,
        precision=precision,
        backend=backend_name(target.model, device),
        layout=layout_label(config.channels_last),
        device=name,
        queries=config.queries,
        params=count_parameters(target.model),
        versions=software_versions(),
        commit=git_commit(),
    )
    layers = attention_layers(target.model, row.model)
    return [
        replace(row, layer=layer.name, head=head) for layer in layers for head in range(layer.heads)
    ]


def open_images(config: DispersionConfig, target: EvalTarget, resolution: int) -> EvalLoader:
    """Return the validation pictures at one resolution; their classes do not matter."""
    data = target.data
    return create_eval_loader(
        data, resolution, batch_size=config.batch_size, num_workers=data.num_workers
    )


@torch.inference_mode()
def measure_rows(
    rows: list[Record], target: EvalTarget, loader: EvalLoader, device: torch.device
) -> list[Record]:
    """Complete the rows of `plan_rows`, in one pass over the pictures."""
    count, queries, precision = rows[0].n, rows[0].queries or 1, rows[0].precision
    tallies: dict[str, Tally] = {}
    tokens: dict[str, int] = {}
    samples: dict[int, Tensor] = {}

    def listener(layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> None:
        n = tokens[layer.name] = q.shape[1] * q.shape[2]
        if n not in samples:
            samples[n] = sample_queries(n, queries, QUERY_SEED).to(device)
        tally = tallies.setdefault(layer.name, Tally())
        add_weights(tally, layer.kernel, q, k, v, samples[n])

    normalize = Normalize(target.mean, target.std).to(device)
    layers = attention_layers(target.model, rows[0].model)
    batches = -(-count // loader.batch_size)
    with listening(layers, listener):
        for images in track(
            _first(loader, count),
            description=f"{rows[0].resolution} px",
            total=batches,
            transient=True,
            disable=not sys.stdout.isatty(),
        ):
            images = normalize(images.to(device, non_blocking=True))
            with autocast(device, precision):
                target.model(images.double() if precision == "64-true" else images)
    done = []
    for name, group in groupby(rows, key=lambda row: row.layer):
        for row, numbers in zip(group, tallies[name].rows(), strict=True):
            done.append(replace(row, tokens=tokens[name], **numbers))  # type: ignore[arg-type]
    return done


def _first(loader: EvalLoader, count: int) -> Iterator[Tensor]:
    """Yield batches of the first ``count`` pictures, padding left out."""
    for images, labels in loader:
        images = images[labels >= 0][:count]
        yield images
        count -= len(images)
        if count <= 0:
            return


Listener = Callable[["Layer", Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class Layer:
    """One attention of a model.

    Attributes:
        name: its path in the model.
        module: a mixer of ours, or timm's plain attention.
        kernel: its weights.
        heads: how many.
    """

    name: str
    module: nn.Module
    kernel: Kernel
    heads: int


def attention_layers(model: nn.Module, name: str) -> list[Layer]:
    """Return all attentions of a model, from the first to the last.

    Args:
        model: with our mixers, or a plain vision transformer of timm's (ViT, DeiT).
        name: of the model, for the error.

    Raises:
        SemabenchError: it has none that is of the form of ``ops.generalized_attention``.
    """
    layers = []
    for path, module in model.named_modules():
        if isinstance(module, Mixer) and (kernel := module.kernel()) is not None:
            layers.append(Layer(path, module, kernel, module.num_heads))
        elif isinstance(module, TimmAttention):
            softmax = Kernel(scaled(identity, True), identity, Phi.EXP)
            layers.append(Layer(path, module, softmax, module.num_heads))
    if not layers:
        mixer = mixer_name(model)
        what = f"its mixer {mixer} has" if mixer else f"{type(model).__name__} has"
        raise SemabenchError(
            f"{name} cannot disperse: {what} no queries and keys of the form measured here. "
            f"Choose a model with {', '.join(mixers_with_kernel())}, or timm's ViT or DeiT."
        )
    return layers


def mixers_with_kernel() -> list[str]:
    """Return the names of our mixers whose weights come from q·k."""
    return [name for name in list_mixers() if create_mixer(name, 4, 1).kernel() is not None]


@contextlib.contextmanager
def listening(layers: list[Layer], listener: Listener) -> Iterator[None]:
    """Call ``listener(layer, q, k, v)`` whenever a layer runs; tensors are (B, H, W, heads, d).

    q, k and v are projected once more from what the layer is given, by its own code and in its own
    precision: they are those that it attends with, before ψ.
    """
    handles = [layer.module.register_forward_pre_hook(_hook(layer, listener)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: Layer, listener: Listener) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hear(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, Mixer):
            q, k, v = module.heads(arguments[0])
        else:
            q, k, v = _timm_heads(module, arguments[0])
        listener(layer, q, k, v)

    return hear


def _timm_heads(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v of timm's attention as a grid of one row: class tokens have no place."""
    qkv = module.qkv(x).unflatten(-1, (3, module.num_heads, -1))
    q, k, v = qkv[:, None].unbind(-3)
    return module.q_norm(q), module.k_norm(k), v
