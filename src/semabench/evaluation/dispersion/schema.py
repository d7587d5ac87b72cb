"""The keys of `measure=dispersion`: on random inputs, or with a model on its images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from semabench.config.check import check_model
from semabench.config.key import ABOVE_0, Need, key
from semabench.config.schema import DataConfig
from semabench.errors import SemabenchError
from semabench.evaluation.schema import TargetConfig, require_lists

KERNELS = ("softmax", "linear", "focused", "mila", "window")
VALUES = ("independent", "keys")
_MIN_TOKENS = 4

ON_RANDOM = Need(
    lambda c: c.random,
    "beside a model (it is of random inputs)",
    "the checkpoint=... or model=...",
)
WITH_MODEL = Need(lambda c: not c.random, "on random inputs", "give checkpoint=RUN")
_WINDOWS = Need(
    lambda c: not c.random or "window" in c.kernels, "without windows", "add window to kernels"
)


@dataclass
class DispersionConfig(TargetConfig):
    """`semabench eval measure=dispersion`."""

    measure: str = key("dispersion")
    data: DataConfig | None = key(
        None, "null: the one the checkpoint was trained on", needs=[WITH_MODEL]
    )
    batch_size: int = key(8, low=1, needs=[WITH_MODEL])
    channels_last: bool = key(True, needs=[WITH_MODEL])
    window_size: int | None = key(None, "null: 7, or as trained", low=1, needs=[_WINDOWS])
    output_dir: str | None = key(
        None, "null: <run>/dispersion, or outputs/dispersion/<model or random>"
    )
    kernels: list[str] = key([*KERNELS], choices=KERNELS, needs=[ON_RANDOM])
    tokens: list[int] = key([], "n, squares of at least 4: a grid of √n × √n", needs=[ON_RANDOM])
    dim: int = key(32, "channels of a head", low=1, needs=[ON_RANDOM])
    bound: float = key(1.0, "q and k: uniform in [-bound, bound]", low=ABOVE_0, needs=[ON_RANDOM])
    values: str = key(
        "independent",
        "v: independent: uniform in [0, 1] | keys: (1 + k / bound) / 2",
        choices=VALUES,
        needs=[ON_RANDOM],
    )
    seeds: list[int] = key([0, 1, 2], low=0, needs=[ON_RANDOM])
    images: int = key(32, "of the validation set, the first", low=1, needs=[WITH_MODEL])
    queries: int = key(256, "sampled, of each grid; all where it has fewer", low=1)

    @property
    def random(self) -> bool:
        """Whether the inputs are random: no model is named."""
        return self.checkpoint is None and self.model is None


def check_dispersion(config: DispersionConfig) -> None:
    """Raise a SemabenchError that names the first key that does not fit the others."""
    if config.random:
        _check_random(config)
        return
    check_model(config.model)
    if not config.resolutions:
        raise SemabenchError(
            "no resolutions (with a model they stand in for tokens): give e.g. "
            "'resolutions=[128,160,224]'."
        )


def _check_random(config: DispersionConfig) -> None:
    if config.resolutions:
        raise SemabenchError(
            "resolutions are those of a model's images: give checkpoint=RUN, too, or "
            "'tokens=[49,196]' for random inputs."
        )
    require_lists(config, _EXAMPLES)
    for n in config.tokens:
        side = math.isqrt(max(n, 0))
        if n < _MIN_TOKENS or side * side != n:
            close = max(2, round(max(n, 0) ** 0.5)) ** 2
            raise SemabenchError(
                f"tokens must be squares of at least {_MIN_TOKENS}, not {n}: {close} is near."
            )
    if config.dim % 4:
        raise SemabenchError(f"dim must be a multiple of 4, for MILA's RoPE, not {config.dim}.")
    if config.precision not in (None, "64-true"):
        raise SemabenchError("random inputs are measured in 64-true: leave precision out.")


_EXAMPLES: dict[str, Any] = {
    "kernels": "[softmax,window]",
    "tokens": "[49,196,784]",
    "seeds": "[0,1,2]",
}
