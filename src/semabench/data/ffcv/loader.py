"""Batches from .beton files: FFCV's format and decoder (or its equal), our draws and watchdog."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
import warnings
import weakref
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np
import torch

from semabench.config.schema import DataConfig
from semabench.data.draws import PADDING
from semabench.data.epoch import Batch, Dataset, EpochLoader, TrainingSet
from semabench.data.ffcv.check import require_intact
from semabench.data.ffcv.format import Beton, read_beton, read_sidecar, require_holdout
from semabench.data.ffcv.native import native_library
from semabench.data.image import JPG, RAW
from semabench.errors import SemabenchError, nearest
from semabench.progress import said_if_slow

#: Filters for training crops: "area" is libffcv's (OpenCV's INTER_AREA), the others are Pillow's.
#: The values are the kernels' codes.
INTERPOLATIONS = {"area": 0, "bilinear": 1, "bicubic": 2}


def missing_ffcv() -> str | None:
    """Return why FFCV cannot be used here, or ``None`` if it can."""
    try:
        native_library()["imdecode"]
    except (ImportError, OSError, AttributeError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


class FFCVLoader(EpochLoader):
    """Common to both FFCV loaders: the file, the threads, and what may go wrong with them.

    All processes of a machine share one copy of the file, the system's page cache.

    Args:
        path: a .beton, refused unless it is the file that its sidecar describes.
        num_workers: threads; the cores this process may use if not given, and never more.
        ahead: finished batches that may wait.
        timeout: seconds without a finished sample after which loading counts as dead.
        options: see ``EpochLoader``.

    Raises SemabenchError if the file is missing, unfinished, damaged, or unfit for the purpose.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_workers: int | None = None,
        ahead: int = 3,
        timeout: float = 30.0,
        **options: Any,
    ) -> None:
        sidecar = require_intact(path)
        self._identity = _identity(path)
        beton = read_beton(path)
        super().__init__(
            num_samples=len(beton),
            classes=sidecar.classes,
            names=sidecar.names,
            fingerprint=sidecar.fingerprint,
            **options,
        )
        self.path = path
        self.settings: dict[str, Any] = sidecar.settings
        self.paths = sidecar.paths
        self.num_workers = _native().thread_count(num_workers)
        self.ahead = ahead
        self.timeout = timeout
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._labels = np.ascontiguousarray(beton.labels)
        self._offsets = beton.offsets
        self._status = np.zeros(0, np.uint8)
        self._prepare(beton)

    @abstractmethod
    def _prepare(self, beton: Beton) -> None:
        """Look at what the file holds; raise if it does not fit."""

    @abstractmethod
    def _fill(self, keys: np.ndarray, epoch: int, images: np.ndarray) -> None:
        """Write the samples' pixels into ``images``, their outcomes into ``self._status``."""

    def _load(self, order: np.ndarray, epoch: int, first: int) -> Generator[Batch, None, None]:
        self._require_unchanged()
        self._compile()
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

        def produce(step: int) -> Batch:
            if step == 0:  # settings that belong to a thread
                _native().use_threads(self.num_workers)
                if device is not None:
                    torch.cuda.set_device(device)
            return self._batch(order[step], epoch, first + step, pin=device is not None)

        yield from prefetch(
            produce,
            range(len(order)),
            what=lambda number: f"{self.path}, epoch {epoch}, batch {first + number}",
            ahead=self.ahead,
            timeout=self.timeout,
            progress=lambda: id(self._status) + int(np.count_nonzero(self._status)),
        )

    def _compile(self) -> None:
        """Run the kernel on an empty batch: it compiles here and not on the watchdog's time."""
        lock = _native().kernel_lock
        if not lock.acquire(timeout=self.timeout):
            raise SemabenchError(f"{self.path}: another loader of this process hangs; start again.")
        try:
            # Here, in a thread that lasts: TBB hangs at the end if one started it that has ended.
            _native().use_threads(self.num_workers)
            self._status = np.zeros(0, np.uint8)
            empty = np.empty((0, *2 * [self.resolution], 3), np.uint8)
            with said_if_slow(f"compiling the loader of {self.path.name}: 10 to 30 s, once"):
                self._fill(np.zeros(0, np.int64), 0, empty)
        finally:
            lock.release()

    def _batch(self, keys: np.ndarray, epoch: int, number: int, pin: bool) -> Batch:
        self._require_unchanged()
        # Fresh memory, so that nobody's batch is overwritten; pinned memory is torch's caching
        # allocator's, which lets copies to the device finish before reuse.
        shape = (len(keys), *2 * [self.resolution_of(epoch, number)], 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
        self._status = np.zeros(len(keys), np.uint8)
        with _native().kernel_lock:
            self._fill(keys, epoch, images.numpy())
        if (self._status != _native().DONE).any():
            self._explain(keys, epoch, number)
        labels = np.where(keys == PADDING, PADDING, self._labels[keys % self.num_samples])
        return images.permute(0, 3, 1, 2), torch.from_numpy(labels)

    def _explain(self, keys: np.ndarray, epoch: int, number: int) -> NoReturn:
        self._require_unchanged()
        slot = int(np.argmax(self._status != _native().DONE))
        index = keys[slot] % self.num_samples
        verb = "read" if self._status[slot] == _native().UNREAD else "decoded"
        raise SemabenchError(
            f"{self.path}: sample {index} cannot be {verb} (epoch {epoch}, batch "
            f"{number}): run `semabench data check {self.path}`, then pack it again."
        )

    def _require_unchanged(self) -> None:
        if _identity(self.path) != self._identity:
            what = "has been replaced, changed or removed since this run opened it"
            raise SemabenchError(f"{self.path} {what}: start again.")


class FFCVTrainLoader(FFCVLoader):
    """Random-resized-crops, flipped at random, of a packed training set.

    Args:
        path: what ``semabench data pack`` wrote.
        scale: range of a crop's share of the image's area, drawn uniformly.
        ratio: range of a crop's width / height, drawn log-uniformly.
        hflip: probability of a horizontal flip.
        interpolation: one of ``INTERPOLATIONS``; bilinear and bicubic equal Pillow's to the bit.
        decoder: "ffcv", or "simplejpeg", which also serves where FFCV is not installed.
        options: see ``FFCVLoader``.
    """

    def __init__(
        self,
        path: Path,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        hflip: float = 0.5,
        interpolation: str = "bicubic",
        decoder: str = "ffcv",
        **options: Any,
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            raise SemabenchError(
                f"the FFCV loader has no interpolation '{interpolation}'."
                f"{nearest(interpolation, INTERPOLATIONS)}"
            )
        reason = "data.loader=simplejpeg" if decoder == "simplejpeg" else missing_ffcv()
        if reason is not None and interpolation == "area":
            raise SemabenchError(
                f"data.interpolation=area is FFCV's, which is not used here ({reason}): set "
                "bicubic or bilinear."
            )
        module = "semabench.data.ffcv." + ("decode" if reason is None else "turbo")
        self._decode_crops = import_module(module).decode_crops
        self._interpolation = INTERPOLATIONS[interpolation]
        self._crop = (*map(float, scale), *map(float, ratio), float(hflip))
        super().__init__(path, train=True, **options)
        # The same 64 bits as numba's own integer type, which is signed.
        self._signed_seed = int(np.uint64(self.seed).view(np.int64))

    def _prepare(self, beton: Beton) -> None:
        self._sizes = beton.sizes
        self._modes = beton.modes.astype(np.int64)
        self._heights = beton.heights.astype(np.int64)
        self._widths = beton.widths.astype(np.int64)
        bytes_of = 3 * self._heights * self._widths
        largest_jpeg = int(self._sizes[self._modes == JPG].max(initial=0))
        row = 3 * int(max(self._heights.max(), self._widths.max()))
        self._encoded = np.empty((self.num_workers, largest_jpeg), np.uint8)
        self._staging = np.empty((self.num_workers, int(bytes_of.max())), np.uint8)
        self._scratch = np.empty((self.num_workers, row * max(self.sizes.all)), np.uint8)

    def _fill(self, keys: np.ndarray, epoch: int, images: np.ndarray) -> None:
        self._decode_crops(
            keys, self._signed_seed, epoch, self._file, self._offsets, self._sizes,
            self._modes, self._heights, self._widths, *self._crop, self._interpolation,
            self._encoded, self._staging, self._scratch, images, self._status,
        )  # fmt: skip


class FFCVEvalLoader(FFCVLoader):
    """Every image of a rendered validation set once, its pixels as they are in the file.

    Args:
        path: what ``semabench data render`` wrote at this resolution.
        options: see ``FFCVLoader``.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, train=False, **options)

    def _prepare(self, beton: Beton) -> None:
        sides = np.concatenate([beton.heights, beton.widths])
        if (beton.modes != RAW).any() or (sides != self.resolution).any():
            raise SemabenchError(
                f"{self.path} does not hold raw images of {self.resolution}×{self.resolution}: "
                "make it with `semabench data render`."
            )

    def _fill(self, keys: np.ndarray, epoch: int, images: np.ndarray) -> None:
        _native().read_raw(keys, self._file, self._offsets, images, self._status)


class PackedDataset(Dataset):
    """A directory of .beton files: ``train.beton`` and ``val-<R>.beton``."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        self.train_file = Path(config.packed) / "train.beton"
        self.source = config.source or "SRC"  # in the commands that messages tell

    def eval_file(self, resolution: int, split: str = "val") -> Path:
        """Return where the split rendered at ``resolution`` lies."""
        return Path(self.config.packed) / f"{split}-{resolution}.beton"

    def describe(self) -> TrainingSet:
        """Read the sidecar of the training set."""
        self._require_train_file()
        sidecar = read_sidecar(self.train_file)
        require_holdout(self.train_file, sidecar.settings, self.config.holdout)
        # What packing does to pixels is part of what a run learns from.
        settings = hashlib.sha256(json.dumps(sidecar.settings, sort_keys=True).encode())
        fingerprint = f"{sidecar.fingerprint}+{settings.hexdigest()[:12]}"
        return TrainingSet(sidecar.samples, sidecar.classes, fingerprint)

    def train_loader(self, **options: Any) -> FFCVTrainLoader:
        """Open ``train.beton``."""
        self._require_train_file()
        options["decoder"] = self.config.loader
        loader = FFCVTrainLoader(self.train_file, **self.crops, **options)
        require_holdout(self.train_file, loader.settings, self.config.holdout)
        return loader

    def eval_loader(
        self,
        resolution: int,
        *,
        split: str = "val",
        holdout: float | None = None,
        **options: Any,
    ) -> FFCVEvalLoader:
        """Open ``<split>-<R>.beton``."""
        config, path = self.config, self.eval_file(resolution, split)
        command = self._render([resolution], split)
        if config.interpolation != "bicubic":
            command += f" --interpolation {config.interpolation}"
        if not path.is_file():
            raise SemabenchError(f"no file {path}: make it with `{command}`.")
        loader = FFCVEvalLoader(path, resolution=resolution, **options)
        for key in ("crop_pct", "interpolation"):
            wanted = getattr(config, key)
            if (found := loader.settings.get(key, wanted)) != wanted:
                raise SemabenchError(
                    f"{path} was rendered with {key} {found}, not {wanted}: `{command} "
                    "--overwrite`."
                )
        require_holdout(path, loader.settings, holdout)
        return loader

    def prepare(self, resolutions: list[int]) -> None:
        """Verify checksums; files that are missing are reported where they are opened."""
        for path in (self.train_file, *map(self.eval_file, resolutions)):
            if path.is_file():
                require_intact(path)

    def require_eval(self, resolutions: list[int], split: str = "val") -> None:
        """Look for the rendered files."""
        missing = [r for r in resolutions if not self.eval_file(r, split).is_file()]
        if missing:
            which = "" if split == "val" else f", {split},"
            raise SemabenchError(
                f"{self.config.name}{which} is not rendered at {', '.join(map(str, missing))} px: "
                f"`{self._render(missing, split)}`."
            )

    def _require_train_file(self) -> None:
        if not self.train_file.is_file():
            raise SemabenchError(
                f"no file {self.train_file}: make it with `semabench data pack {self.source} "
                f"{self.config.packed}`."
            )

    def _render(self, resolutions: list[int], split: str) -> str:
        part = "" if split == "val" else f" --split {split}"
        crop = "" if self.config.crop_pct == 0.875 else f" --crop-pct {self.config.crop_pct}"
        sides = " ".join(map(str, resolutions))
        where = f"{self.source} {self.config.packed}"
        return f"semabench data render {where}{part} --resolution {sides}{crop}"


def packed_or_folder(config: DataConfig) -> Dataset:
    """Return the packed dataset; its source folder, with a warning, where FFCV is not needed.

    Without FFCV simplejpeg decodes what is packed. What is not packed is read as it lies.
    """
    reason = missing_ffcv()
    packed = PackedDataset(config)
    asked = config.loader == "simplejpeg"
    if asked or reason is None or config.source is None or packed.train_file.is_file():
        return packed
    warnings.warn(
        f"{packed.train_file} is not packed and FFCV cannot be used here ({reason}): reading the "
        f"images in {config.source} with the slower folder loader.",
        stacklevel=4,
    )
    from semabench.data.folder import FolderDataset  # deferred: torchvision takes a second

    return FolderDataset(config)


def _native() -> ModuleType:
    """Import the compiled half."""
    from semabench.data.ffcv import kernels  # deferred: numba takes a second

    return kernels


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced or written to; ``None`` if it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


Item = TypeVar("Item")
Step = TypeVar("Step")

POLL_SECONDS = 0.25
JOIN_SECONDS = 10.0


def prefetch(
    produce: Callable[[Step], Item],
    steps: Sequence[Step],
    *,
    what: Callable[[int], str],
    ahead: int = 3,
    timeout: float = 30.0,
    progress: Callable[[], int] = lambda: 0,
) -> Iterator[Item]:
    """Yield ``produce(step)`` for each step in order, computed up to ``ahead`` items in advance.

    ffcv's own epoch thread, when it fails, leaves its consumer blocked for ever, and when its
    consumer stops early, it lives on. Here every failure reaches the consumer.

    The thread starts at the first ``next`` and ends with the iterator: when that is exhausted,
    closed or forgotten.

    Args:
        produce: makes one item; called in the thread.
        what: says in words what item number ``i`` is, for messages.
        ahead: how many finished items may wait.
        timeout: seconds of waiting without an item and without progress after which to give up.
            Time in which this process itself is stopped does not count.
        progress: any number that changes while an item is being worked on, so that a slow disk is
            not taken for a dead thread.

    Raises:
        SemabenchError: ``produce`` failed (its own error if it is one), its thread died, or
            nothing happened for ``timeout`` seconds.
    """
    producer = _Producer(produce, steps, ahead)
    producer.start()
    try:
        for number in range(len(steps)):
            yield producer.wait(what, number, timeout, progress)
    finally:
        producer.stop()


class _Producer(threading.Thread, Generic[Step, Item]):
    """Puts ``produce(step)`` of each step into a bounded queue, until told to stop."""

    def __init__(self, produce: Callable[[Step], Item], steps: Sequence[Step], ahead: int) -> None:
        super().__init__(daemon=True, name="semabench-prefetch")
        self.produce = produce
        self.steps = steps
        self.items: queue.Queue[Item] = queue.Queue(maxsize=ahead)
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self.hangs = False

    def run(self) -> None:
        try:
            for step in self.steps:
                item = self.produce(step)
                while not self._offered(item):
                    if self.stopping.is_set():
                        return
        except BaseException as error:  # SystemExit too: the consumer must hear of any end
            self.failure = error

    def _offered(self, item: Item) -> bool:
        try:
            self.items.put(item, timeout=POLL_SECONDS)
        except queue.Full:
            return False
        return not self.stopping.is_set()

    def wait(
        self, what: Callable[[int], str], number: int, timeout: float, progress: Callable[[], int]
    ) -> Item:
        """Return the next item, or raise what ``prefetch`` promises."""
        waited, seen = 0.0, progress()
        while True:
            alive = self.is_alive()  # asked before looking: what it put before it died is found
            try:
                return self.items.get(timeout=POLL_SECONDS) if alive else self.items.get_nowait()
            except queue.Empty:
                pass
            if not alive:
                raise _death(self.failure, what(number)) from self.failure
            waited += POLL_SECONDS  # counted, not measured: a suspended process is no dead thread
            if (now := progress()) != seen:
                waited, seen = 0.0, now
            if waited >= timeout:
                self.hangs = True
                raise SemabenchError(
                    f"{what(number)}: the loading thread has done nothing for {timeout:g} s; check "
                    "the disk that the file is on, then start again."
                )

    def stop(self) -> None:
        """End the thread; one that hangs is left behind (it is a daemon)."""
        self.stopping.set()
        while not self.items.empty():
            self.items.get_nowait()
        if not self.hangs:
            self.join(JOIN_SECONDS)


def _death(failure: BaseException | None, what: str) -> SemabenchError:
    if isinstance(failure, SemabenchError):
        return failure
    if failure is None:
        return SemabenchError(f"{what}: the loading thread has died without a word; start again.")
    cause = f"{type(failure).__name__}: {failure}".rstrip(": ").replace("\n", " ")
    return SemabenchError(f"{what}: the loading thread has failed with {cause}")
