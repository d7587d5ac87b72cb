"""What ops share: tables of the grid, kept; names of backends; autocast's dtype; Triton."""

from __future__ import annotations

import functools
import os
import shutil
import sysconfig
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVarTuple

import torch
from torch import Tensor

from semabench.errors import SemabenchError, nearest

Key = TypeVarTuple("Key")


def cached_table(maxsize: int) -> Callable[[Callable[[*Key], Tensor]], Callable[[*Key], Tensor]]:
    """Cache a function from hashable arguments to a constant tensor, the last ``maxsize`` of them.

    While ``torch.compile`` or ``torch.export`` trace, the table is built inside the graph, where it
    is fused or folded. Tables are built as ordinary tensors even inside ``torch.inference_mode``:
    an evaluation before the first training step must not leave tensors that autograd refuses.
    """

    def decorate(build: Callable[[*Key], Tensor]) -> Callable[[*Key], Tensor]:
        cached = functools.lru_cache(maxsize)(build)

        @functools.wraps(build)
        def table(*key: *Key) -> Tensor:
            if torch.compiler.is_compiling():
                return build(*key)
            with torch.inference_mode(False), torch.no_grad():
                return cached(*key)

        return table

    return decorate


def resolve(op: str, backend: str, available: Collection[str], auto: str) -> str:
    """Return the backend that ``backend`` stands for: itself, or ``auto`` for ``"auto"``.

    Raises:
        SemabenchError: ``backend`` is neither "auto" nor one of ``available``.
    """
    if backend == "auto":
        return auto
    if backend not in available:
        hint = nearest(str(backend), ["auto", *available])
        raise SemabenchError(f"{op} has no backend '{backend}'.{hint}")
    return backend


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the dtype that autocast computes in on ``device``; None where it is off.

    torch 2.11 does not trace ``is_autocast_available``, which would break a graph.
    """
    if device.type not in ("cpu", "cuda") or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def missing_for_triton() -> str:
    """Return what Triton's kernels lack here; nothing if they can run."""
    if find_spec("triton") is None:
        return "the package triton"
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["clang", "gcc"]  # as Triton does
    if not any(map(shutil.which, compilers)):
        return "a C compiler (gcc, clang or CC)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers (python3-dev)"
    return ""


_LACKS = missing_for_triton()  # looked up once: torch.compile does not trace the search
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def on_triton(
    op: str, backend: str, available: Collection[str], otherwise: str,
    device: torch.device | None, dtype: torch.dtype | None,
) -> str:  # fmt: skip
    """Return the backend of an op that Triton's kernels serve on a GPU, by "auto", too.

    ``otherwise`` where they do not run: on a CPU, in float64, or, by "auto", where Triton lacks
    something.

    Args:
        op, backend, available: as of ``resolve``, "triton" among the last.
        otherwise: what runs everywhere.
        device: of the inputs; None: not known yet.
        dtype: of the inputs; None: not float64.

    Raises:
        SemabenchError: there is no such backend, or Triton is asked for and lacks something.
    """
    name = resolve(op, backend, available, auto=otherwise if _LACKS else "triton")
    if name != "triton":
        return name
    if _LACKS:
        raise SemabenchError(f"{op}'s backend 'triton' needs {_LACKS}, which is not installed.")
    unknown = device is None and backend == "triton"
    there = unknown or (device is not None and _runs_triton(device))
    return "triton" if there and dtype != torch.float64 else otherwise


def _runs_triton(device: torch.device) -> bool:
    return device.type == "cuda" or (device.type == "cpu" and _INTERPRETED)
