"""Work ahead in a thread, and never wait for it in vain.

ffcv's own epoch thread, when it fails, leaves its consumer blocked for ever (its queue has no
timeout, and an exception in the thread goes nowhere); when its consumer stops early, it lives on.
``prefetch`` hands every failure to the consumer, and its thread ends with it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from semabench.errors import SemabenchError

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
