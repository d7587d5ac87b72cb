"""Ctrl-C ends a training, also where Python loses it. Other signals: tests/e2e."""

import os
import signal

import lightning as L
import pytest
from small_run import fit, small_batches, small_module
from torch.utils.data import DataLoader

from semabench.training.stopping import StopOnSignal, take_over_signals


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


class Listening(L.Callback):
    """Who listens to SIGTERM when training starts."""

    def on_train_start(self, trainer, pl_module):
        self.handler = signal.getsignal(signal.SIGTERM)


def test_lightning_does_not_listen():
    """Before the first step there is nothing to store: SIGTERM ends the process at once."""
    listening = Listening()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[listening],
    )  # fmt: skip
    take_over_signals(trainer)
    batches = DataLoader(small_batches(1), batch_size=None, collate_fn=lambda batch: batch)
    trainer.fit(small_module(1), batches)
    assert listening.handler is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
