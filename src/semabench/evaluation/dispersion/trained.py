"""Dispersion in a trained model: the q, k and v of its own layers, over its validation pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import torch
from rich.progress import track
from torch import Tensor

from semabench.config.dispersion import DispersionConfig
from semabench.data.loader import EvalLoader, create_eval_loader
from semabench.data.normalize import Normalize
from semabench.evaluation.dispersion.capture import Layer, attention_layers, listening
from semabench.evaluation.dispersion.tally import Tally, add_weights, sample_queries
from semabench.evaluation.labels import layout_label
from semabench.evaluation.on_device import autocast
from semabench.evaluation.subject import Subject
from semabench.models import backend_name, set_resolution
from semabench.models.flops import count_parameters
from semabench.results.record import Record, git_commit, software_versions

QUERY_SEED = 0  # of the sample of queries: the same positions in every model


def plan_rows(
    config: DispersionConfig,
    subject: Subject,
    loader: EvalLoader,
    resolution: int,
    precision: str,
    device: torch.device,
) -> list[Record]:
    """Return a row for each head of each layer at one resolution, as known before it is measured.

    The model is brought to that resolution.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    set_resolution(subject.model, resolution)
    row = Record(
        **subject.fields,
        measure="dispersion",
        dataset=subject.data.name,
        fingerprint=loader.fingerprint,
        n=min(config.pictures, loader.num_samples),
        resolution=resolution,
        crop_pct=subject.data.crop_pct,
        interpolation=subject.data.interpolation,
        precision=precision,
        backend=backend_name(subject.model, device),
        layout=layout_label(config.channels_last),
        device=name,
        queries=config.queries,
        params=count_parameters(subject.model),
        versions=software_versions(),
        commit=git_commit(),
    )
    layers = attention_layers(subject.model, row.model)
    return [
        replace(row, layer=layer.name, head=head) for layer in layers for head in range(layer.heads)
    ]


def open_pictures(config: DispersionConfig, subject: Subject, resolution: int) -> EvalLoader:
    """Return the validation pictures at one resolution; their classes do not matter."""
    data = subject.data
    return create_eval_loader(
        data, resolution, batch_size=config.batch_size, num_workers=data.num_workers
    )


@torch.inference_mode()
def measure_rows(
    rows: list[Record], subject: Subject, loader: EvalLoader, device: torch.device
) -> list[Record]:
    """Complete the rows of `plan_rows`, in one pass over the pictures."""
    pictures, queries, precision = rows[0].n, rows[0].queries or 1, rows[0].precision
    tallies: dict[str, Tally] = {}
    tokens: dict[str, int] = {}
    samples: dict[int, Tensor] = {}

    def listener(layer: Layer, q: Tensor, k: Tensor, v: Tensor) -> None:
        n = tokens[layer.name] = q.shape[1] * q.shape[2]
        if n not in samples:
            samples[n] = sample_queries(n, queries, QUERY_SEED).to(device)
        tally = tallies.setdefault(layer.name, Tally())
        add_weights(tally, layer.kernel, q, k, v, samples[n])

    normalize = Normalize(subject.mean, subject.std).to(device)
    layers = attention_layers(subject.model, rows[0].model)
    batches = -(-pictures // loader.batch_size)
    with listening(layers, listener):
        for images in track(
            _first(loader, pictures),
            description=f"{rows[0].resolution} px",
            total=batches,
            transient=True,
            disable=not sys.stdout.isatty(),
        ):
            images = normalize(images.to(device, non_blocking=True))
            with autocast(device, precision):
                subject.model(images.double() if precision == "64-true" else images)
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
