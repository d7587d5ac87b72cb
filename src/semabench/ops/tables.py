"""Tables that depend on the grid (masks, rotations): made on the fly, kept in a bounded cache.

They are no buffers of a module, so that no weight file, EMA copy or DDP broadcast ever sees a size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVarTuple

import torch
from torch import Tensor

Key = TypeVarTuple("Key")


def cached_table(
    maxsize: int,
) -> Callable[[Callable[[*Key], Tensor]], Callable[[*Key], Tensor]]:
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
