"""One training of a study: all that its weights depend on but for device and versions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from semabench.data.procedural.tasks import Task, task_named


@dataclass(frozen=True)
class Recipe:
    """How long and how a training learns."""

    steps: int
    batch_size: int
    lr: float
    warmup_steps: int
    weight_decay: float
    clip_grad: float


@dataclass(frozen=True)
class Training:
    """One training, and all that its weights depend on but for device and versions."""

    task: str
    clear: int
    pairs: tuple[int, ...]
    mixer: str
    seed: int
    train_resolutions: tuple[int, ...]
    readout: str
    depth: int
    embed_dim: int
    num_heads: int
    recipe: Recipe

    @property
    def config(self) -> str:
        """Six hex digits that name its settings but for task, mixer and seed."""
        told = asdict(self)
        for name in ("task", "mixer", "seed", "clear"):
            del told[name]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:6]

    @property
    def title(self) -> str:
        """Name it on a screen."""
        sizes = ",".join(map(str, self.train_resolutions))
        extra = "" if self.readout == "query" else f", {self.readout}"
        extra += "" if self.depth == 1 else f", {self.depth} blocks"
        return f"{self.task} {self.mixer}, {sizes} px{extra}, seed {self.seed}"

    def drawn(self, pairs: int | None = None) -> Task:
        """Return its task, of recall with one m alone if that is given."""
        if self.task != "recall":
            return task_named(self.task, clear=self.clear)
        choices = self.pairs if pairs is None else (pairs,)
        return task_named(self.task, clear=self.clear, pairs=choices)
