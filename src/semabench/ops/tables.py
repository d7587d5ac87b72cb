"""What ops share: tables that depend on the grid, in a bounded cache; names of backends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
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
