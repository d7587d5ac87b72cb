"""When a run is compiled, and what becomes of it if compiling fails."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from semabench.config.schema import ModelConfig, RecipeConfig, TrainConfig, TrainerConfig
from semabench.data.epoch import Sizes
from semabench.errors import SemabenchError
from semabench.training.compiling import Compile, wants_compile
from semabench.training.module import Classifier


def config(compile=None, compiles=True, **trainer):
    return TrainConfig(
        model=ModelConfig(name="sema_nano", compiles=compiles),
        trainer=TrainerConfig(compile=compile, compile_min_steps=100, **trainer),
    )


def test_long_runs_of_models_that_gain_are_compiled_on_a_gpu():
    assert wants_compile(config(), "gpu", 100)
    assert not wants_compile(config(), "gpu", 99)
    assert not wants_compile(config(), "cpu", 1000)
    assert not wants_compile(config(compiles=False), "gpu", 1000)
    assert wants_compile(config(compile=True, compiles=False), "cpu", 1)
    assert not wants_compile(config(compile=False), "gpu", 1000)


class Plain(nn.Module):
    """Layers under a forward of its own: torch 2.11 compiles nothing of a bare Sequential."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def started(callback: Compile, mesa: float = 0.0, accelerator: str = "cpu") -> Classifier:
    """A module whose training has just started under the callback."""
    model = Plain(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4096, 2))
    module = Classifier(
        model,
        RecipeConfig(name="r", batch_size=8, mesa=mesa, ema_decay=0.9),
        num_classes=2,
        steps_per_epoch=3,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
        describe={},
        micro_batches=2,
    )
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
    )
    trainer.strategy.connect(module)
    module.to(trainer.strategy.root_device)
    module.trainer = trainer
    trainer.datamodule = SimpleNamespace(sizes=Sizes(32))  # type: ignore[attr-defined]
    callback.on_train_start(trainer, module)
    return module


def step_after(module: Classifier) -> None:
    """Go forward and backward as a step of Lightning's does."""
    images = torch.zeros(4, 3, 32, 32, device=module.device)
    with module.trainer.precision_plugin.train_step_context():
        loss = module.model(images.to(memory_format=torch.channels_last)).float().square().mean()
    loss.backward()


def through(monkeypatch, backend):
    """Let Module.compile use another backend than inductor, which needs a minute."""
    compile_ = nn.Module.compile
    options = {"backend": backend}
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kw: compile_(self, **kw, **options))


def test_the_trial_leaves_no_trace(monkeypatch, capsys):
    graphs = []

    def backend(graph, inputs):
        graphs.append([tuple(x.shape) for x in inputs if x.dim() == 4])
        return graph.forward

    through(monkeypatch, backend)
    module = started(Compile(required=False), mesa=1.0)
    assert "compiled for 32 px" in capsys.readouterr().out
    assert len(graphs) == 2  # the model, and its averaged copy
    assert all((4, 3, 32, 32) in shapes for shapes in graphs)  # a part of the batch
    assert module.model.layers[1].num_batches_tracked == 0
    assert torch.equal(module.model.layers[1].running_mean, torch.zeros(4))
    assert all(weight.grad is None for weight in module.parameters())
    step_after(module)
    assert len(graphs) == 2  # a step runs what the trial has compiled
    torch._dynamo.reset()


def broken(graph, inputs, **_):
    raise RuntimeError("no compiler here\nand much more")


def test_a_run_goes_on_without_where_compiling_fails(monkeypatch, caplog):
    through(monkeypatch, broken)
    module = started(Compile(required=False))
    assert "training goes on without it" in caplog.text
    assert "no compiler here" in caplog.text
    assert module.model(torch.zeros(4, 3, 32, 32)).shape == (4, 2)  # eager
    torch._dynamo.reset()


def test_a_run_that_was_told_to_compile_stops_where_it_fails(monkeypatch):
    through(monkeypatch, broken)
    with pytest.raises(SemabenchError, match=r"fails for 32 px \(.*\): trainer\.compile=false"):
        started(Compile(required=True))
    torch._dynamo.reset()


@pytest.mark.parametrize("accelerator", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_step_compiles_nothing_after_the_trial(accelerator, monkeypatch, capsys):
    if accelerator == "cpu":
        through(monkeypatch, "eager")
    torch._dynamo.reset()
    counters["stats"].clear()
    module = started(Compile(required=True), mesa=1.0, accelerator=accelerator)
    assert "compiled for 32 px" in capsys.readouterr().out
    assert counters["stats"]["unique_graphs"] == 2  # the model's, and its average's
    with torch._dynamo.config.patch(error_on_recompile=True):
        step_after(module)
    assert counters["stats"]["unique_graphs"] == 2
    assert all(weight.grad is not None for weight in module.model.parameters())
    torch._dynamo.reset()
