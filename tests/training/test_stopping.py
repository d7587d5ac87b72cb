"""Ctrl-C ends a training, also where Python loses it. Other signals: tests/e2e."""

import os
import signal

import lightning as L
import pytest
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from small_run import fit, small_batches, small_module

from semabench.training.stopping import StopOnSignal, Stopped


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_before_the_first_step_a_run_stops_at_once(number, code):
    """There is nothing to store."""
    before = signal.getsignal(number)
    told = Told(number)
    stop = StopOnSignal(lambda trainer: pytest.fail("stored"), agree_every=4)
    with pytest.raises(Stopped) as stopped:
        fit(small_module(8), small_batches(8), [told, stop])
    assert (stopped.value.exit_code, told.went_on) == (code, False)
    assert signal.getsignal(number) is before


def test_a_run_that_ends_gives_all_handlers_back():
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
    before = [signal.getsignal(number) for number in numbers]
    stop = StopOnSignal(lambda trainer: pytest.fail("stored"), agree_every=4)
    fit(small_module(1), small_batches(1), [stop])
    assert [signal.getsignal(number) for number in numbers] == before


def test_names_that_lightning_changes_are_missed_at_once(monkeypatch):
    monkeypatch.delattr(_TrainingEpochLoop, "_broadcast_sigterm_tensor")
    with pytest.raises(AttributeError, match="_broadcast_sigterm_tensor"):
        fit(small_module(1), small_batches(1), [])
