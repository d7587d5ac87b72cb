"""Compiled kernels kept on disk: compiling the FFCV loader's takes seconds at each process's start.

numba's own cache, in ``__pycache__`` beside the source or in the user's cache directory, does not
see that a file has changed which a kernel calls functions of, may take one kernel's code for
another's, and raises where a cache cannot be read or written. A cache is never a reason not to
train.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile


class _LabelledFiles(IndexDataCacheFile):
    """Code that says what it is of, and is taken for nothing else.

    numba writes into an index which file holds a kernel, and then that file. A full disk or a kill
    between the two leaves an older kernel in it; of two processes that begin an index at once, for
    two kinds of processor, each may find the other's.
    """

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (self._label(key), data))

    def load(self, key: Any) -> Any:
        found = super().load(key)
        if found is None:
            return None
        label, data = found
        return data if label == self._label(key) else None

    def _label(self, key: Any) -> tuple[Any, ...]:
        return numba.__version__, self._source_stamp, key


class _KernelCache(FunctionCache):
    """Entries belong to the contents of ``sources``; what cannot be used is made anew."""

    def __init__(self, function: Any, sources: tuple[Path, ...]) -> None:
        super().__init__(function)
        self._cache_file = _LabelledFiles(
            self.cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )
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
        with contextlib.suppress(Exception):  # a full disk, a damaged index that it forbids to mend
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
    # Nowhere to write; no files, as in an archive; a numba that is another inside.
    with contextlib.suppress(Exception):
        kernel._cache = _KernelCache(kernel.py_func, sources)
    return kernel
