"""One measurement of one model at one resolution, as one flat, versioned row."""

from __future__ import annotations

import math
import re
import subprocess
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from semabench import __version__
from semabench.errors import SemabenchError, nearest

# Since 2: cost; 3: dispersion; 4: study; 5: structure in fields; 6: busy_ms, launch_ms, logits,
# seen_resolution; 7: probe, corruption, labels.
SCHEMA = 7


def _key(default: Any = MISSING) -> Any:
    """Return a field that makes two rows the same measurement: part of `Record.key`."""
    return field(default=default, metadata={"key": True})


def utc_now() -> str:
    """Return the time in UTC, ISO 8601 to the second: such strings sort as times do."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of ``results.jsonl``.

    The numbers (from ``top1`` on) may be None: a row of cost has no accuracy, and a row that is
    only planned has none at all. So an evaluation builds the row first, skips it if its
    :attr:`key` is among the rows already stored, and otherwise completes it with
    ``dataclasses.replace(row, top1=..., ...)``. What an evaluation does not tell stays at its
    default: ``mode`` is of cost alone, ``layer`` and what follows of dispersion.

    Raises:
        SemabenchError: a value that no measurement can have (accuracy above 100, ...).
    """

    schema: int = SCHEMA
    measure: str = _key("accuracy")  # "cost", on random images; "dispersion"; …: see `measures`
    # What was measured.
    model: str = _key()
    mixer: str = _key("")
    options: str = _key("")  # options that change the function, not the weights: "window_size=14"
    params: int | None = None
    gmacs: float | None = None  # billions of multiply-adds for one image at `resolution`
    checkpoint: str = _key("")  # hash of the weights; empty if they were initialised at random
    weights: str = _key("model")  # "model" or "ema"
    # How it was trained.
    recipe: str = ""
    config: str = _key("")  # hash of the training config without the seed
    seed: int | None = _key(None)
    epochs: int | None = None  # behind these weights
    train_resolution: int | None = None
    # On what.
    dataset: str = ""
    fingerprint: str = _key("")  # hash of names, sizes and labels; of a task its settings
    classes: int | None = None
    labels: str = _key("")  # "real": ReaL's, in place of the dataset's
    logits: str = _key("")  # of a model of more classes: "own", or "all", which compete, too
    n: int = _key(0)  # samples; 0 where none were needed
    seen_resolution: int | None = None  # where the model leaves out the rim of an image
    resolution: int = _key()  # in pixels; on random inputs the side of their grid
    crop_pct: float | None = _key(None)
    interpolation: str = _key("")
    # How.
    precision: str = _key("")
    backend: str = _key("")  # of the mixer's op
    device: str = _key("")
    mode: str = _key("")  # of cost: "infer", or "train": a whole optimiser step
    execution: str = _key("")  # of accuracy and cost: "eager", "graph", "compiled", …
    layout: str = _key("")  # of images: "nchw" where it is not channels-last
    batch_size: int | None = _key(None)
    asked_batch_size: int | None = None  # where that ran out of memory, and batch_size is less
    rounds: int | None = None  # timed windows behind the medians of cost
    versions: str = ""  # "torch 2.8.0, timm 1.0.20, semabench 0.1.0"
    commit: str = ""
    run: str = ""  # name of the run directory
    time: str = field(default_factory=utc_now)
    # The numbers: accuracies and their standard errors in percent.
    top1: float | None = None
    top1_stderr: float | None = None
    top5: float | None = None
    top5_stderr: float | None = None
    images_per_second: float | None = None
    images_per_second_spread: float | None = None  # half the distance between the quartiles
    latency_ms: float | None = None  # of one batch
    latency_ms_spread: float | None = None
    busy_ms: float | None = None  # of it the GPU at work; its idle gaps left out
    launch_ms: float | None = None  # of the host, for a step it need not wait for
    joules_per_image: float | None = None  # of the whole device
    joules_per_image_spread: float | None = None
    peak_memory_mib: float | None = None
    # Dispersion: of one head's attention weights, over a sample of queries (docs/dispersion.md).
    layer: str = _key("")  # path of the mixer in the model; empty for random inputs
    head: int | None = _key(None)
    queries: int | None = _key(None)  # sampled, of each image
    tokens: int | None = None  # of the layer's grid
    keys: int | None = None  # the most that one query reaches
    n_max_weight: float | None = None  # tokens · largest |weight|, mean over queries
    n_max_weight_highest: float | None = None  # the same, of the query with the largest
    n_min_weight: float | None = None  # tokens · smallest weight of all queries
    weight_bound: float | None = None  # tokens · M / (m · keys); None: infinite
    weight_sum: float | None = None
    entropy_ratio: float | None = None  # entropy / log tokens
    effective_keys: float | None = None  # exp(entropy)
    mean_distance: float | None = None  # ‖attention − mean(V)‖ / ‖mean(V)‖
    softmax_distance: float | None = None  # the same for softmax over all tokens, same q and k
    input_bound: float | None = _key(None)  # of random inputs: q, k in ±bound
    input_dim: int | None = _key(None)  # of a head
    input_values: str = _key("")  # how v is drawn
    # Corruption: of ImageNet-C, which set.
    corruption: str = _key("")  # "fog"
    severity: int | None = _key(None)  # 1 to 5
    # Probe: of classifiers on the features before a model's last layer.
    classifier: str = _key("")  # "knn" or "linear"
    neighbors: int | None = _key(None)  # of knn
    train_n: int | None = _key(None)  # training images whose labels it knows
    temperature: float | None = _key(None)  # of its votes
    penalties: str = _key("")  # on the linear layer's weights, those tried
    penalty: float | None = None  # and the one that was chosen
    # Study: of a model trained on one of the procedural tasks, the `dataset` (docs/study.md).
    train_resolutions: tuple[int, ...] = ()  # in turn, in one training
    tested_on: str = _key("")  # "test", or "calibration": which images were drawn
    test_seed: int | None = _key(None)  # of these
    depth: int | None = None  # blocks
    readout: str = ""  # "query", "attention" or "avg"
    pairs: int | None = _key(None)  # m, of the task recall
    steps: int | None = None  # of the optimiser
    train_batch_size: int | None = None
    train_loss: float | None = None  # mean over the last tenth of the steps
    train_seconds: float | None = None  # beside other trainings on the same device

    def __post_init__(self) -> None:
        for name in ("top1", "top5"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise SemabenchError(f"{name} is {value}: an accuracy is a percentage, 0 to 100.")
        if self.resolution < 1 or self.n < 0:
            raise SemabenchError(
                f"a result at resolution {self.resolution} on {self.n} samples makes no sense."
            )

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for two rows exactly if they are the same measurement; known before measuring."""
        values = {name: getattr(self, name) for name in KEY_FIELDS}
        if self.asked_batch_size is not None:
            values["batch_size"] = self.asked_batch_size
        return tuple(values.values())

    @property
    def mixer_or_model(self) -> str:
        """What a line is coloured by: the mixer, or the model where it names none."""
        return self.mixer or self.model

    @property
    def told_apart(self) -> str:
        """What an accuracy is of, where it is not the dataset's labels among themselves."""
        return "".join(f"-{kind}" for kind in (self.labels, self.logits) if kind in ("real", "all"))

    @property
    def trained_at(self) -> str:
        """The sizes of the training's images, as ``48 px`` or ``96, 112, 128 px``; or nothing."""
        sizes = ", ".join(map(str, self.train_resolutions)) or self.train_resolution
        return f"{sizes} px" if sizes else ""

    @property
    def inputs(self) -> str:
        """How random inputs were drawn, but for the seed; nothing of images."""
        bound = "" if self.input_bound is None else f"q, k in ±{self.input_bound:g}"
        dim = "" if self.input_dim is None else f"d {self.input_dim}"
        values = f"v {self.input_values}" if self.input_values else ""
        return ", ".join(filter(None, (bound, dim, values)))

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON-ready values, in the order of the fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Self:
        """Return the record of a stored row, strictly: every field known and of its type.

        A row of an older schema is converted, so that its key is that of the same measurement now.

        Raises:
            SemabenchError: an unknown, missing or mistyped field, or a newer schema.
        """
        schema = row.get("schema")
        if not isinstance(schema, int):
            raise SemabenchError("the row has no schema number: it is not a semabench result.")
        if schema > SCHEMA:
            raise SemabenchError(
                f"the row has schema {schema}, this semabench reads up to {SCHEMA}: upgrade it."
            )
        if schema < 5:
            row = _converted(row)
        types_of = field_types()
        for name, value in row.items():
            if name not in types_of:
                raise SemabenchError(f"unknown field '{name}'.{nearest(name, types_of)}")
            if not _fits(value, types_of[name]):
                raise SemabenchError(f"field '{name}' cannot be {value!r}.")
        missing = [name for name in ("model", "resolution") if name not in row]
        if missing:
            raise SemabenchError(f"the row has no '{missing[0]}'.")
        sizes = tuple(row.get("train_resolutions", ()))
        return cls(**{**row, "schema": SCHEMA, "train_resolutions": sizes})


Take = Callable[[Record], Any]
KEY_FIELDS = tuple(f.name for f in fields(Record) if f.metadata.get("key"))
"""What makes two rows the same measurement: which weights, on which pixels, computed how."""


def accuracy(correct: int, n: int) -> tuple[float, float]:
    """Return the accuracy and its binomial standard error, 100·√(p(1-p)/n), both in percent.

    The standard error is that of drawing n samples with p the observed accuracy. It says
    nothing about the spread over training seeds, which only repeated runs can show.
    """
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} correct of {n}")
    p = correct / n
    return 100 * p, 100 * math.sqrt(p * (1 - p) / n)


def newest_of_equals(records: Iterable[Record], equal: Sequence[str | Take]) -> list[Record]:
    """Return of rows that agree in these fields the newest, at the place of the first."""
    takes = [attrgetter(name) if isinstance(name, str) else name for name in equal]
    newest: dict[Hashable, Record] = {}
    for row in records:
        key = tuple(take(row) for take in takes)
        if key not in newest or row.time >= newest[key].time:
            newest[key] = row
    return list(newest.values())


def _converted(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of schema 1 to 4 with what it told in strings as fields."""
    row = dict(row)
    backend, *suffixes = str(row.get("backend", "")).split("+")
    if suffixes and set(suffixes) <= {"compile", "nchw"}:
        row["backend"] = backend
        row["layout"] = "nchw" if "nchw" in suffixes else ""
    if row.get("measure", "accuracy") == "accuracy" and not row.get("execution"):
        row["execution"] = "compiled" if "compile" in suffixes else "eager"
    sizes = row.get("train_resolutions")
    if isinstance(sizes, str):
        row["train_resolutions"] = [int(size) for size in sizes.split(",") if size.isdigit()]
    fingerprint = str(row.get("fingerprint", ""))
    if found := re.fullmatch(r"(.+), (test|calibration) (\d+)", fingerprint):
        if row.get("measure") == "study":
            row["fingerprint"], row["tested_on"] = found[1], found[2]
            row["test_seed"] = int(found[3])
    elif found := re.fullmatch(_RANDOM_INPUTS, fingerprint):
        row["fingerprint"], row["input_bound"] = "", float(found[1])
        row["input_dim"] = int(found[2]) if found[2] else None
        row["input_values"] = found[3] or ""
    return row


_RANDOM_INPUTS = r"q, k in ±([\d.e+-]+)(?:, d (\d+))?(?:, v (\w+))?, seed \d+"


@cache
def field_types() -> dict[str, tuple[type, ...]]:
    """Return the types that each field may have; ``tuple`` is one of integers."""
    hints = typing.get_type_hints(Record)
    origins = {name: typing.get_origin(hint) or hint for name, hint in hints.items()}
    unions = {name for name, origin in origins.items() if origin is types.UnionType}
    return {f: typing.get_args(hints[f]) if f in unions else (origins[f],) for f in origins}


def _fits(value: Any, allowed: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, list | tuple):
        return tuple in allowed and all(type(item) is int for item in value)
    if isinstance(value, int) and float in allowed:
        return True
    return isinstance(value, allowed)


@cache
def software_versions() -> str:
    """Return the versions that move results, as ``"torch 2.8.0, timm 1.0.20, semabench 0.1.0"``."""
    installed = [f"{name} {metadata.version(name)}" for name in ("torch", "timm")]
    return ", ".join([*installed, f"semabench {__version__}"])


@cache
def git_commit() -> str:
    """Return the commit of this source tree, with ``+`` if it has changes; empty outside git."""
    here = str(Path(__file__).resolve().parent)

    def git(*arguments: str) -> str:
        command = ["git", "-C", here, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        makers = ":/src", ":/conf", ":/benchmarks"  # of numbers
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *makers)
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if changed else "")
