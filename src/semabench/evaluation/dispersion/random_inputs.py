"""Dispersion on bounded random inputs: the theorem's setting, with nothing learned."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semabench.evaluation.dispersion.schema import DispersionConfig
from semabench.evaluation.dispersion.statistics import Tally, add_weights, sample_queries
from semabench.mixers import Mixer, create_mixer
from semabench.ops.generalized_attention import Kernel
from semabench.results.record import Record, git_commit, software_versions

WINDOW = 7


@dataclass(frozen=True)
class Job:
    """One kernel, n and seed, and its row as known beforehand."""

    mixer: Mixer
    tokens: int
    seed: int
    row: Record


def plan_jobs(config: DispersionConfig, device: torch.device) -> list[Job]:
    """Return what is to be measured, small n first."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    jobs = []
    for n in dict.fromkeys(config.tokens):
        for kernel in dict.fromkeys(config.kernels):
            mixer = create_mixer(kernel, config.dim, 1, **_options(kernel, config)).double()
            for seed in dict.fromkeys(config.seeds):
                row = Record(
                    measure="dispersion",
                    model=kernel,
                    mixer=kernel,
                    options=",".join(f"{k}={v}" for k, v in _options(kernel, config).items()),
                    seed=seed,
                    dataset="random",
                    input_bound=config.bound,
                    input_dim=config.dim,
                    input_values=config.values,
                    resolution=math.isqrt(n),
                    queries=min(config.queries, n),
                    tokens=n,
                    precision="64-true",
                    device=name,
                    versions=software_versions(),
                    commit=git_commit(),
                )
                jobs.append(Job(mixer.to(device), n, seed, row))
    return sorted(jobs, key=lambda job: job.tokens)


def measure_job(job: Job, config: DispersionConfig, device: torch.device) -> Record:
    """Draw the inputs of one job and complete its row."""
    q, k, v = random_inputs(config, job.tokens, job.seed)
    rows = sample_queries(job.tokens, config.queries, job.seed)
    tally = Tally()
    kernel = exact(job.mixer.kernel())
    add_weights(tally, kernel, q.to(device), k.to(device), v.to(device), rows.to(device))
    (numbers,) = tally.rows()
    return replace(job.row, **numbers)  # type: ignore[arg-type]


def random_inputs(config: DispersionConfig, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v, each (1, √n, √n, 1, d) in float64, the same on every device.

    q and k are uniform in [-bound, bound], hence their logits are bounded. v is in [0, 1]: uniform
    and independent of k, or a linear function of k, which softmax does not average away.
    """
    side = math.isqrt(n)
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 1, side, side, 1, config.dim)
    q, k, v = torch.rand(shape, generator=generator, dtype=torch.float64)
    q, k = config.bound * (2 * q - 1), config.bound * (2 * k - 1)
    return q, k, (1 + k / config.bound) / 2 if config.values == "keys" else v


def exact(kernel: Kernel | None) -> Kernel:
    """Return a kernel without its eps: the equation, not its guard against a division by zero."""
    assert kernel is not None
    return replace(kernel, eps=0.0)


def _options(kernel: str, config: DispersionConfig) -> dict[str, int]:
    return {"window_size": config.window_size or WINDOW} if kernel == "window" else {}
