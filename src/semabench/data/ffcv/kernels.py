"""What the compiled halves of the .beton loader share: draws, reading, threads, kernels on disk.

numba takes a second to import: this module is imported only where it is used.

Compiling takes seconds, so compiled kernels are kept on disk. numba's own cache does not see that a
file has changed which a kernel calls functions of, may take one kernel's code for another's, and
raises where a cache cannot be read or written; a cache is never a reason not to train.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from llvmlite.binding import add_symbol
from numba import config, njit, prange, set_num_threads, types
from numba.core.caching import FunctionCache, IndexDataCacheFile

from semabench.data import draws
from semabench.data.ffcv import resample
from semabench.processes import worker_count


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


#: One at a time: numba's fallback threading layer aborts when two threads enter it.
kernel_lock = threading.Lock()

MAX_THREADS: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]

AREA = 0  # the filter code of libffcv's INTER_AREA; others are `resample.SUPPORT`

#: Status of a sample while its batch is being made.
WAITING, DONE, UNREAD, DAMAGED = 0, 1, 2, 3


def thread_count(num_workers: int | None) -> int:
    """Return how many threads to use: numba has made one for each usable core, and no more."""
    cores = min(worker_count(None), MAX_THREADS)
    wanted = cores if num_workers is None else worker_count(num_workers)
    if wanted > cores:
        warnings.warn(
            f"num_workers={wanted} exceeds the {cores} core(s) this process may use; "
            f"the FFCV loader uses {cores}.",
            stacklevel=4,
        )
    return min(wanted, cores)


#: Let kernels that the calling thread starts run on so many threads, at most ``MAX_THREADS``.
use_threads = set_num_threads


def by_name(library: ctypes.CDLL, name: str, result: types.Type, *arguments: types.Type) -> Any:
    """Return a function of C for kernels, which refer to it by name and so can be kept on disk."""
    address = ctypes.cast(library[name], ctypes.c_void_p).value
    add_symbol(f"semabench_{name}", address)
    return types.ExternalFunction(f"semabench_{name}", result(*arguments))


# Not a memory map: reading one beyond the end of a file that was cut short kills the process.
# Either way the pages are the system's, one copy for all processes of a machine.
pread = by_name(
    ctypes.CDLL(None), "pread", types.intp, types.int32, types.intp, types.uintp, types.int64
)


def _compiled(function: Callable[..., Any], **replaced: Any) -> Callable[..., Any]:
    """Compile a function of `draws`, with its calls to another one replaced by compiled ones."""
    scope = {**function.__globals__, **replaced}
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    return njit(nogil=True, error_model="numpy")(copy)


_philox = _compiled(draws.philox)
draw_crop = _compiled(draws.draw_crop, philox=_philox)
draw_flip = _compiled(draws.draw_flip, philox=_philox)


@njit(parallel=True, nogil=True, error_model="numpy")
def read_raw(indices, file, offsets, images, status) -> None:  # type: ignore[no-untyped-def]
    """Read raw samples, all of the size of ``images``, into a batch; padding (−1) is black."""
    size = images.shape[1] * images.shape[2] * 3
    flat = images.reshape(len(indices), size)
    for slot in prange(len(indices)):
        index = indices[slot]
        if index < 0:
            flat[slot, :] = 0
        elif pread(file, flat[slot].ctypes.data, size, offsets[index]) != size:
            status[slot] = UNREAD
            continue
        status[slot] = DONE


parts = [Path(str(module.__file__)) for module in (draws, resample)]  # of kernels that draw crops
read_raw = keep_compiled(read_raw)
