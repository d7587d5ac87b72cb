"""Stopping on a signal without losing a step: SIGTERM (preemption) and SIGUSR1 (time is short).

And on ctrl-C (SIGINT), at once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from semabench.processes import STOP


class Stopped(BaseException):
    """The run was asked to stop and has stored where it stands, if it has begun.

    No `Exception`: before the first step it comes at any moment, and a compiler that is at work
    then would take it for its own failure.

    Attributes:
        number: of the signal.
        begun: whether there was a step to store.
    """

    def __init__(self, number: int, begun: bool = True) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.begun = begun

    @property
    def exit_code(self) -> int:
        """The shell's code for the signal: 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.number


def ignore_signals() -> None:
    """Ignore further signals to stop, in all threads."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def listening() -> Iterator[None]:
    """Stop at once at a signal until `StopOnSignal` takes over; put the handlers back at the end.

    Until the first step, while loaders start and the compiler is tried, nothing has been learnt
    since the checkpoint. A run that stops hears no further signal: of many processes one may get
    its own only after it has stopped with the others, and would die of it instead of ending with
    the stop's code.

    Raises:
        Stopped: before the first step.
    """
    found: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, *STOP)}
    for heard in STOP:
        signal.signal(heard, _stop_at_once)
    try:
        yield
    except Stopped:
        found = {signal.SIGINT: found[signal.SIGINT]}
        raise
    finally:
        for number, handler in found.items():
            if handler is not None:  # None: it was set outside Python
                signal.signal(number, handler)


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    ignore_signals()
    raise Stopped(number, begun=False)


class StopOnSignal(Callback):
    """Notes a signal when it comes, and stores and stops at the next step boundary.

    During validation it waits for the end of the epoch, whose checkpoint holds that validation.
    Several processes agree first, every ``agree_every`` steps, so that none stops while others
    wait for it; a single one looks after every step.

    Ctrl-C stops wherever the program is, and stores nothing. Python loses it where it strikes in a
    destructor ("Exception ignored in …"): then it strikes again after the step. (One of several
    processes that loses it may have to be ended by torchrun or srun, as the others are gone.)

    Args:
        save: writes the checkpoint.
        agree_every: steps between two agreements.
    """

    def __init__(self, save: Callable[[L.Trainer], None], agree_every: int) -> None:
        self.save = save
        self.agree_every = agree_every
        self.received = 0
        self.interrupted = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen: from here on there is something to store."""
        self.received, self.interrupted = 0, False
        for number in STOP:
            signal.signal(number, self._note)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Store and stop; after an epoch's last step its own checkpoint comes first.

        Raises:
            Stopped: the checkpoint is written.
            KeyboardInterrupt: ctrl-C was lost.
        """
        self._strike_again()
        every = 1 if trainer.world_size == 1 else self.agree_every
        if trainer.is_last_batch or trainer.global_step % every:
            return
        if number := self._agreed(trainer):
            self.save(trainer)
            raise Stopped(number)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Stop if ctrl-C was lost.

        Raises:
            KeyboardInterrupt: it was.
        """
        self._strike_again()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop; the epoch's checkpoint is written already. A run that is whole just ends.

        Raises:
            Stopped: the checkpoint is written.
        """
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if (number := self._agreed(trainer)) and not last:
            raise Stopped(number)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Hear no further signal in a run that stops: see `listening`."""
        if isinstance(exception, Stopped):
            ignore_signals()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        raise KeyboardInterrupt

    def _strike_again(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt

    def _agreed(self, trainer: L.Trainer) -> int:
        """Return the signal that any process has received, or 0."""
        if trainer.world_size == 1:
            return self.received
        mine = torch.tensor(self.received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(mine, reduce_op="max"))
