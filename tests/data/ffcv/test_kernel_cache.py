"""Compiled kernels on disk: found again, never stale, and never a reason to fail."""

from __future__ import annotations

import errno
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from semabench.data.ffcv.loader import FFCVEvalLoader, FFCVTrainLoader

numba = pytest.importorskip("numba")
cache = pytest.importorskip("semabench.data.ffcv.kernels", exc_type=ImportError)

KERNEL = "def twice(x):\n    return helper(x) * 2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("def helper(x):\n    return x + 1\n")
    (tmp_path / "kernel.py").write_text(KERNEL)
    return tmp_path


def load(path: Path, name: str = "") -> ModuleType:
    """A module of its own of this file, as another process has it."""
    spec = importlib.util.spec_from_file_location(name or path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def process(folder: Path) -> Any:
    """The kernel as a new process has it, which calls a function of another file."""
    kernel, helper = load(folder / "kernel.py"), load(folder / "helper.py")
    kernel.helper = numba.njit(helper.helper)  # type: ignore[attr-defined]
    return cache.keep_compiled(numba.njit(kernel.twice), folder / "helper.py")


def hits(kernel: Any) -> int:
    return sum(kernel.stats.cache_hits.values())


def test_the_second_process_finds_what_the_first_compiled(folder):
    for expected in (0, 1):
        kernel = process(folder)
        assert kernel(3) == 8
        assert hits(kernel) == expected


@pytest.mark.parametrize("changed", ["helper.py", "kernel.py"])
def test_a_changed_source_is_compiled_anew(folder, changed):
    assert process(folder)(3) == 8
    path = folder / changed
    text = path.read_text().replace("+ 1", "+ 10").replace("* 2", "* 20")
    path.write_text(text)
    kernel = process(folder)
    assert kernel(3) == (26 if changed == "helper.py" else 80)
    assert hits(kernel) == 0


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_file_is_replaced(folder, suffix):
    assert process(folder)(3) == 8
    (path,) = folder.rglob(f"*.{suffix}")
    path.write_bytes(path.read_bytes()[:20])
    for expected in (0, 1):
        kernel = process(folder)
        assert kernel(3) == 8
        assert hits(kernel) == expected


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_the_time_only(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
        assert process(folder)(3) == 8
    kernel = process(folder)
    assert (kernel(3), hits(kernel)) == (8, 0)


def test_a_disk_that_was_full_at_an_update_leaves_no_old_code(folder, monkeypatch):
    """numba's index names the file already, which still holds the kernel before."""
    assert process(folder)(3) == 8
    (folder / "kernel.py").write_text(KERNEL.replace("* 2", "* 20"))
    with monkeypatch.context() as patch:
        patch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
        assert process(folder)(3) == 80
    for expected in (0, 1):
        kernel = process(folder)
        assert (kernel(3), hits(kernel)) == (80, expected)


def test_a_damaged_index_on_a_full_disk(folder, monkeypatch):
    assert process(folder)(3) == 8
    (index,) = folder.rglob("*.nbi")
    index.write_bytes(index.read_bytes()[:20])
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_index", full)
    assert process(folder)(3) == 8


def test_two_that_begin_at_once_do_not_take_each_others_code(folder, monkeypatch):
    """Two kinds of processor: both call their file the first, and one's index is lost."""
    key = cache._KernelCache._index_key
    with monkeypatch.context() as patch:
        patch.setattr(cache._KernelCache, "_index_key", lambda *a: (*key(*a), "another"))
        assert process(folder)(3) == 8
    (theirs,) = folder.rglob("*.nbc")
    code = theirs.read_bytes()
    for path in folder.rglob("*.nb[ic]"):
        path.unlink()
    assert process(folder)(3) == 8
    theirs.write_bytes(code)  # ours is the index, theirs the code
    for expected in (0, 1):
        kernel = process(folder)
        assert kernel(3) == 8
        assert hits(kernel) == expected


def test_no_place_for_a_cache(folder, monkeypatch):
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert process(folder)(3) == 8
    assert not list(folder.rglob("*.nbi"))


@pytest.mark.parametrize(("decoder", "kernel"), [("decode", "decode_crops"), ("turbo", "_crop")])
def test_the_loaders_kernels_are_found_again(decoder, kernel, dataset, monkeypatch):
    """They hold no address of their process: numba would not keep them."""
    name = f"semabench.data.ffcv.{decoder}"
    pytest.importorskip(name, exc_type=ImportError)
    again = {}

    def read() -> None:
        options = {"resolution": 32, "batch_size": 4, "seed": 0, "num_workers": 1}
        by = "ffcv" if decoder == "decode" else "simplejpeg"
        next(iter(FFCVTrainLoader(dataset.packed / "train.beton", decoder=by, **options)))
        next(iter(FFCVEvalLoader(dataset.packed / "val-32.beton", **options)))

    read()
    for module in (cache.__name__, name):
        again[module] = load(Path(str(sys.modules[module].__file__)), module)
        monkeypatch.setitem(sys.modules, module, again[module])
    monkeypatch.setattr("semabench.data.ffcv.loader._native", lambda: again[cache.__name__])
    read()
    assert hits(again[cache.__name__].read_raw) == 1
    assert hits(getattr(again[name], kernel)) == 1
