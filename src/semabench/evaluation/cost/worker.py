"""The process of one model in one mode: it builds, compiles and times, each when it is told to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch._dynamo.utils import compile_times

from semabench.errors import SemabenchError
from semabench.evaluation.cost.meters import ran_out_of_memory
from semabench.evaluation.cost.schema import CostModel
from semabench.evaluation.cost.workload import WARMUP, Setting, Window, Workload, build_bare
from semabench.models.flops import count_gmacs, count_parameters
from semabench.training.device import free_memory


@dataclass(frozen=True)
class Prepared:
    """A model that is warm: its batch size, less than asked for where memory ran out, and steps."""

    batch_size: int
    steps: int  # of a window


class CostWorker:
    """What one process can be asked. Between two calls it keeps weights and graphs alone.

    Args:
        spec: the model.
        mode: ``infer`` or ``train``.
        setting: device, precision, memory format, windows.
    """

    rest = staticmethod(free_memory)

    def __init__(self, spec: CostModel, mode: str, setting: Setting) -> None:
        self.spec = spec
        self.mode = mode
        self.setting = setting
        self.workloads: dict[int, Workload] = {}
        torch.backends.cudnn.benchmark = True

    def ready(self) -> None:
        """Do nothing: who is asked for it waits until the process has started."""

    def count(self, resolution: int) -> tuple[int, float]:
        """Return parameters, and 1e9 multiply-adds of one picture's forward pass."""
        model = build_bare(self.spec, resolution, torch.device("meta"))
        return count_parameters(model), count_gmacs(model, resolution)

    def compile(self, resolution: int, size: int) -> bool:
        """Compile for one shape while peers do the same; return whether memory sufficed.

        Where it did not, the graphs that are made already stay, and `prepare` makes the rest.
        """
        begin = time.monotonic()
        try:
            with _untimed_algorithms():
                self._workload(resolution).steps("compiled", size, WARMUP)
            seconds = time.monotonic() - begin
            print(f"compiled {self.mode} {resolution} px batch {size} in {seconds:.1f} s")
            print(compile_times(repr="str", aggregate=True), flush=True)  # of the process so far
        except Exception as error:
            if ran_out_of_memory(error):
                return False
            raise
        return True

    def prepare(self, resolution: int, execution: str, size: int) -> Prepared:
        """Warm up alone on the device, halving the batch as long as memory runs out."""
        workload = self._workload(resolution)

        def attempt(size: int) -> float:
            workload.steps(execution, size, WARMUP)
            return workload.steps(execution, size, WARMUP)

        size, seconds = halve_until_it_fits(attempt, size)
        return Prepared(size, workload.window_steps(seconds))

    def window(self, resolution: int, execution: str, size: int, steps: int) -> Window:
        """Time one window; see `Workload.window`."""
        others = (w for w in self.workloads.values() if w.resolution != resolution)
        foreign = sum(workload.held_bytes() for workload in others)
        return self.workloads[resolution].window(execution, size, steps, foreign)

    def busy(self, resolution: int, execution: str, size: int) -> float | None:
        """Return the milliseconds that the device works at a step; None on a CPU."""
        return self.workloads[resolution].busy_milliseconds(execution, size)

    def _workload(self, resolution: int) -> Workload:
        if resolution not in self.workloads:
            self.workloads[resolution] = Workload(self.spec, resolution, self.mode, self.setting)
        return self.workloads[resolution]


@contextlib.contextmanager
def _untimed_algorithms() -> Iterator[None]:
    """Have cuDNN choose by rule, in a block that runs beside busy peers, not by timing.

    It keeps what it has chosen; deterministic algorithms it keeps apart, so that none of them is
    used later, where it chooses by timing.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


Result = TypeVar("Result")


def halve_until_it_fits(attempt: Callable[[int], Result], size: int) -> tuple[int, Result]:
    """Call ``attempt`` with ``size``, and with half of it as long as memory runs out.

    Returns:
        The batch size that went through, and what came of it.

    Raises:
        SemabenchError: not even one picture fits.
    """
    while True:
        try:
            return size, attempt(size)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Outside the handler: its traceback would keep the tensors of the failed step alive.
        free_memory()
        if size == 1:
            told = f" ({reason})" if reason else ""
            raise SemabenchError(f"out of memory even at batch size 1{told}")
        size //= 2
