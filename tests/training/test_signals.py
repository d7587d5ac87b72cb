"""Ctrl-C ends a training, also where Python loses it. Other signals: tests/e2e."""

import os
import signal
from contextlib import nullcontext

import lightning as L
import pytest
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from helpers.small_run import fit, small_batches, small_module
from semabench.training.signals import StopOnSignal, Stopped


class Destructor:
    """Exceptions in it are ignored by Python."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


class PressedAt(L.Callback):
    """Ctrl-C at the end of a step, lost."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            thing = Destructor()
            del thing


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lost_interrupt_strikes_after_the_step():
    module = small_module(8)
    stop = StopOnSignal(lambda trainer: pytest.fail("stored"), agree_every=4)
    before = signal.getsignal(signal.SIGINT)
    assert before is signal.default_int_handler
    with pytest.raises(SystemExit):  # which Lightning makes of it
        fit(module, small_batches(8), [PressedAt(3), stop])
    assert stop.interrupted
    assert module.trainer.global_step == 4
    assert signal.getsignal(signal.SIGINT) is before


class Told(L.Callback):
    """A signal to stop as training starts, where a compiler may be at work for minutes."""

    def __init__(self, number):
        self.number = number
        self.went_on = False

    def on_train_start(self, trainer, pl_module):
        try:
            os.kill(os.getpid(), self.number)
            self.went_on = True
        except Exception:  # as around a compiler
            self.went_on = True


@pytest.fixture
def handlers():
    """Put back what the test changes; SIGTERM and SIGUSR1 are this module's own."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
    before = {number: signal.getsignal(number) for number in numbers}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_before_the_first_step_a_run_stops_at_once(number, code, handlers):
    """There is nothing to store. Nothing more is heard, but for ctrl-C."""
    told = Told(number)
    stop = StopOnSignal(lambda trainer: pytest.fail("stored"), agree_every=4)
    with pytest.raises(Stopped) as stopped:
        fit(small_module(8), small_batches(8), [told, stop])
    assert (stopped.value.exit_code, stopped.value.begun, told.went_on) == (code, False, False)
    assert signal.getsignal(number) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is handlers[signal.SIGINT]


class Breaks(L.Callback):
    """An error, and one more as it is dealt with: Lightning then leaves out its clearing up."""

    def on_train_batch_end(self, *_):
        raise OSError("disk full")

    def on_exception(self, *_):
        raise OSError("still full")


@pytest.mark.parametrize("broken", [False, True])
def test_a_run_that_ends_gives_all_handlers_back(handlers, broken):
    callbacks = [StopOnSignal(lambda trainer: pytest.fail("stored"), agree_every=4)]
    callbacks += [Breaks()] if broken else []
    with pytest.raises(OSError, match="still full") if broken else nullcontext():
        fit(small_module(1), small_batches(1), callbacks)
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_names_that_lightning_changes_are_missed_at_once(monkeypatch):
    monkeypatch.delattr(_TrainingEpochLoop, "_broadcast_sigterm_tensor")
    with pytest.raises(AttributeError, match="_broadcast_sigterm_tensor"):
        fit(small_module(1), small_batches(1), [])
