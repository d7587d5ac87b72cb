"""What a run says of itself: waiting for data, use of the device, time left, a trace."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers.small_run import BATCH, fit, small_batches, small_module
from semabench.data.epoch import Sizes
from semabench.training import monitor as module_under_test
from semabench.training.module import Classifier
from semabench.training.monitor import Profile, Throughput, Waiting, flops_per_image, peak_flops

STEPS = 12


class Slow(nn.Module):
    """Takes 20 ms."""

    def forward(self, x):
        time.sleep(0.02)
        return x


class Loader:
    """Takes ``seconds`` for each batch."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return STEPS

    def __iter__(self):
        for batch in small_batches(STEPS):
            time.sleep(self.seconds)
            yield batch


def watched(seconds, monkeypatch):
    monkeypatch.setattr(module_under_test, "SETTLED", 0.05)
    model = nn.Sequential(nn.Flatten(), Slow(), nn.Linear(48, 4))
    waiting = Waiting()
    speed = Throughput(3, BATCH, waiting)
    trainer = fit(small_module(STEPS, model=model, mesa=0.0), Loader(seconds), [speed, waiting])
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_a_starved_run_says_so_once(monkeypatch, caplog):
    metrics = watched(0.03, monkeypatch)
    assert metrics["train/data_wait_percent"] > 30
    assert metrics["train/hours_left"] == 0
    assert caplog.text.count("the device waits for data") == 1
    assert "data.num_workers" in caplog.text


def test_a_run_that_is_fed_does_not(monkeypatch, caplog):
    metrics = watched(0.0, monkeypatch)
    assert 0 <= metrics["train/data_wait_percent"] < 20
    assert "waits for data" not in caplog.text
    assert not [name for name in metrics if "mfu" in name or "memory" in name]  # of no CPU


def test_the_time_left_is_the_pace_times_the_steps(monkeypatch):
    found = []

    class Ask(Throughput):
        def on_train_batch_end(self, trainer, *rest):
            super().on_train_batch_end(trainer, *rest)
            if trainer.global_step == 6:
                found.append(self.hours_left)

    waiting = Waiting()
    model = nn.Sequential(nn.Flatten(), Slow(), nn.Linear(48, 4))
    fit(small_module(STEPS, model=model, mesa=0.0), Loader(0), [Ask(3, BATCH, waiting), waiting])
    (hours,) = found
    assert 6 * 0.02 / 3600 < hours < 6 * 0.5 / 3600


def test_the_figures_by_hand(monkeypatch):
    """Two devices of 1 TFLOP/s, as many GMACs as a side has pixels, MESA in the second epoch."""
    clock, told = [100.0], []

    def look(module, values, *, in_bar):
        told.append({name.removeprefix("train/"): value for name, value in values.items()})
        assert in_bar

    monkeypatch.setattr(module_under_test.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(module_under_test, "log_values", look)
    monkeypatch.setattr(module_under_test, "count_gmacs", lambda model, resolution: resolution)
    module = small_module(4, epochs=2, mesa_start=0.5)
    trainer = SimpleNamespace(
        global_step=0, is_last_batch=False, current_epoch=0, world_size=2, is_global_zero=True,
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: value),
        datamodule=SimpleNamespace(sizes=Sizes(32, [[0, 32], [1, 64]])),
    )  # fmt: skip
    waiting = Waiting()
    speed = Throughput(2, 8, waiting)
    speed._peak = 1e12

    def epoch(number, seconds):
        """Four steps, each after a tenth of its time without data."""
        trainer.current_epoch = number
        monkeypatch.setattr(Classifier, "current_epoch", number)
        for callback in (speed, waiting):
            callback.on_train_epoch_start(trainer, module)
        for step in range(4):
            clock[0] += 0.1 * seconds
            waiting.on_train_batch_start(trainer, module, None, step)
            clock[0] += 0.9 * seconds
            trainer.global_step += 1
            trainer.is_last_batch = step == 3
            for callback in (speed, waiting):
                callback.on_train_batch_end(trainer, module, {}, None, step)

    speed.on_train_start(trainer, module)
    epoch(0, seconds=1.0)
    clock[0] += 10.0  # validation
    epoch(1, seconds=0.5)
    assert [look["images_per_second"] for look in told] == pytest.approx([8, 8, 16, 16])
    assert [look["data_wait_percent"] for look in told] == pytest.approx([10, 10, 10, 10])
    # Two FLOPs a multiply-add, three passes, four with MESA's teacher, of two devices' peak.
    expected = [8 * 2e9 * 32 * 3, 16 * 2e9 * 64 * 4]
    assert [look["mfu_percent"] for look in told[1:3]] == pytest.approx(
        [100 * flops / 2e12 for flops in expected]
    )
    # By the pace since the first look, at 102 s: 2 s for 2 steps; 13 s for 4; 14 s for 6.
    assert "hours_left" not in told[0]
    left = [look["hours_left"] * 3600 for look in told[1:]]
    assert left == pytest.approx([4 * 1.0, 2 * 13 / 4, 0])
    assert (speed.images, speed.seconds) == (32, pytest.approx(2.0))  # of the epoch


@pytest.mark.parametrize(
    ("device", "precision", "tera"),
    [
        ("NVIDIA H200", "bf16-mixed", 989.5),
        ("NVIDIA H100 PCIe", "16-mixed", 756.5),
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", 312),
        ("NVIDIA A100-SXM4-80GB", "32-true", None),
        ("NVIDIA L40S", "bf16-mixed", 362.05),  # neither L40 nor L4
        ("NVIDIA L4", "bf16-mixed", 121),
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989.5),
        ("NVIDIA H100 NVL", "bf16-mixed", 835.5),
        ("NVIDIA GH200 480GB", "bf16-mixed", 989.5),
        ("NVIDIA GB200", "bf16-mixed", 2500),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16-mixed", None),  # a seventh of one
        ("NVIDIA RTX A4000", "bf16-mixed", None),  # no A40
        ("NVIDIA RTX A1000", "bf16-mixed", None),  # no A10
        ("Some other device", "bf16-mixed", None),
    ],
)
def test_peaks_are_known_or_left_out(device, precision, tera):
    assert peak_flops(device, precision) == (None if tera is None else tera * 1e12)


def test_a_multiply_add_is_two_flops_and_a_step_three_passes():
    assert flops_per_image(4.5, 3) == pytest.approx(27e9)


def test_a_trace_of_a_few_steps_is_written(tmp_path, monkeypatch):
    fit(small_module(STEPS), small_batches(STEPS), [Profile(tmp_path / "profile", 2)])
    (path,) = (tmp_path / "profile").iterdir()
    assert path.name == "steps-10-11.json"  # after the warm-up
    names = [event.get("name", "") for event in json.loads(path.read_text())["traceEvents"]]
    assert "aten::linear" in names
    assert sum(name.startswith("Optimizer.step") for name in names) >= 2


@pytest.mark.gpu
def test_waiting_is_the_devices_and_not_the_hosts(monkeypatch):
    """A loader that is slower than the host's launches, but not than the device, starves nobody."""
    work = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)

    class Busy(nn.Module):
        def forward(self, x):
            for _ in range(100):  # 140 ms on an H200 that has nothing else to do
                work @ work
            return x

    def share(seconds):
        waiting = Waiting()
        speed = Throughput(STEPS, BATCH, waiting)
        model = nn.Sequential(nn.Flatten(), Busy(), nn.Linear(48, 4))
        module = small_module(STEPS, model=model, mesa=0.0)
        trainer = fit(module, Loader(seconds), [speed, waiting], "gpu", precision="bf16-mixed")
        told = trainer.callback_metrics
        most = torch.cuda.max_memory_allocated() / 2**30
        assert 0 < float(told["train/memory_gib"]) <= most + 1e-6
        return float(told["train/data_wait_percent"])

    monkeypatch.setattr(module_under_test, "peak_flops", lambda *_: None)  # there is no datamodule
    share(0.0)  # warm up
    began = time.perf_counter()
    share(0.0)
    step = (time.perf_counter() - began) / STEPS  # others may be on this device, too
    assert share(0.2 * step) < 20
    assert share(4 * step) > 40
