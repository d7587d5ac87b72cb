"""What is logged at a look is the host's, wherever the module lives."""

import lightning as L
import torch

from helpers.small_run import fit, small_batches, small_module
from semabench.training.lightning_compat import log_values
from semabench.training.monitor import LossWatch, Throughput, Waiting


class Elsewhere(L.LightningModule):
    """A module on a device from which nothing can be read without waiting: here, not at all."""

    def __init__(self):
        super().__init__()
        self.told = {}

    @property
    def device(self):
        return torch.device("meta")

    def log_dict(self, dictionary, prog_bar=False, **_):
        self.told |= {name: (value, prog_bar) for name, value in dictionary.items()}


def test_numbers_become_tensors_of_the_host():
    module = Elsewhere()
    log_values(module, {"a": 1.5, "b": torch.tensor(2, dtype=torch.float64)}, in_bar=True)
    log_values(module, {"c": torch.tensor(3.0, requires_grad=True)}, in_bar=False)
    told = {name: (float(value), bar) for name, (value, bar) in module.told.items()}
    assert told == {"a": (1.5, True), "b": (2.0, True), "c": (3.0, False)}
    for value, _ in module.told.values():
        assert value.device.type == "cpu"
        assert value.dtype == torch.float32
        assert not value.requires_grad


def test_all_that_the_bar_shows_goes_through_here(monkeypatch):
    """Lightning reads those values again after each step: none comes there by ``log`` alone."""
    shown, through = set(), set()

    def note(module, values, *, in_bar):
        through.update(values if in_bar else ())
        log_values(module, values, in_bar=in_bar)

    monkeypatch.setattr("semabench.training.monitor.log_values", note)

    class Look(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            shown.update(trainer.progress_bar_metrics)

    waiting = Waiting()
    callbacks = [LossWatch(4), Throughput(4, 8, waiting), waiting, Look()]
    trainer = fit(small_module(8), small_batches(8), callbacks)
    assert shown
    assert shown == through
    assert "train/lr" in trainer.logged_metrics
