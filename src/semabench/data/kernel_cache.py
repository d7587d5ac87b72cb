"""Compiled kernels kept on disk: compiling the FFCV loader's takes seconds at each process's start.

numba's own cache, in ``__pycache__`` beside the source or in the user's cache directory, does not
see that a file has changed which a kernel calls functions of, and raises where a cache cannot be
read or written. A cache is never a reason not to train.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache


class _KernelCache(FunctionCache):
    """Entries belong to the contents of ``sources``; what cannot be used is made anew."""

    def __init__(self, function: Any, sources: tuple[Path, ...]) -> None:
        super().__init__(function)
        contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
        self._contents = tuple(contents)

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self._contents)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged, which unpickling tells with many
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk, a quota, no permission
            super().save_overload(sig, data)


def keep_compiled(kernel: Any, *sources: Path) -> Any:
    """Let a kernel be compiled once for each machine's kind of processor, not in each process.

    Args:
        kernel: what ``numba.njit`` returned. It may refer to functions of C by name only
            (``numba.types.ExternalFunction``): their addresses differ between processes.
        sources: the files of other functions that it calls.

    Returns:
        The same kernel. Where there is no place for a cache, nothing is kept.
    """
    with contextlib.suppress(RuntimeError, OSError):  # nowhere to write; no files, as in an archive
        kernel._cache = _KernelCache(kernel.py_func, sources)
    return kernel
