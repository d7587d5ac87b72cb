"""When a run is compiled, and what becomes of it if compiling fails."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch._dynamo.utils import counters

from helpers.small_run import fit, small_batches, small_module
from semabench.config.schema import ModelConfig, RecipeConfig, TrainConfig, TrainerConfig
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
    assert wants_compile(config(cuda_graphs=True), "gpu", 1)


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
        parts=2,
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
    trainer.datamodule = SimpleNamespace(resolution_at=lambda epoch: 32)  # type: ignore[attr-defined]
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


class Watched(Compile):
    """Compiles for 4 px, and calls ``tried_out`` after the trial."""

    def tried_out(self) -> None:
        self.graphs = counters["stats"]["unique_graphs"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.datamodule = L.LightningDataModule()  # type: ignore[attr-defined]
        trainer.datamodule.resolution_at = lambda epoch: 4  # type: ignore[attr-defined]
        super().on_train_start(trainer, pl_module)
        self.tried_out()


def test_steps_under_ddp_run_what_the_trial_has_compiled(monkeypatch):
    """There the model is cut where a bucket of gradients ends: the trial's must be, too."""
    torch._dynamo.reset()
    done = []

    def backend(graph, inputs):
        done.append("compiled")
        return graph.forward

    through(monkeypatch, backend)
    wide = nn.Linear(48, 600), nn.GELU(), nn.Linear(600, 600), nn.GELU(), nn.Linear(600, 4)
    module = small_module(3, model=Plain(nn.Flatten(), *wide))
    watched = Watched(required=True)
    watched.tried_out = lambda: done.append("tried")  # type: ignore[method-assign]
    ddp = DDPStrategy(gradient_as_bucket_view=True, bucket_cap_mb=1)
    try:
        fit(module, small_batches(3), [watched], strategy=ddp)
    finally:
        torch.distributed.destroy_process_group()
    assert done[-1] == "tried"
    assert done.count("compiled") > 2  # the model's pieces, and its average
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
    with pytest.raises(SemabenchError, match=r"fails for 32 px \(.*\): trainer\.cuda_graphs=fal"):
        started(Compile(required=True, cuda_graphs=True))
    torch._dynamo.reset()


def test_graphs_are_recorded_in_the_trial(monkeypatch):
    """A pass to warm up, a pass to record; what cannot be recorded fails, only there."""
    strict, passes = [], []

    def backend(graph, inputs, mode):
        def run(*arguments):
            passes.append(mode)
            return graph.forward(*arguments)

        strict.append(torch._inductor.config.triton.cudagraph_or_error)
        return run

    through(monkeypatch, backend)
    started(Compile(required=True, cuda_graphs=True))
    assert strict == [True]
    assert passes == ["reduce-overhead"] * 2
    assert not torch._inductor.config.triton.cudagraph_or_error
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


def losses(cuda_graphs: bool, steps: int = 12) -> list[float]:
    """Losses of a run with dropout, averaged weights and MESA, compiled from its start."""
    torch._dynamo.reset()
    counters["stats"].clear()
    torch.manual_seed(0)
    hidden = nn.Linear(48, 16), nn.GELU(), nn.Dropout()
    model = Plain(nn.Flatten(), *hidden, nn.Linear(16, 4))
    seen: list[torch.Tensor] = []

    class Losses(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            seen.append(outputs["loss"].detach().clone())

    compile_ = Watched(required=True, cuda_graphs=cuda_graphs)
    module = small_module(steps, model=model)
    fit(module, small_batches(steps), [compile_, Losses()], "gpu", precision="bf16-mixed")
    assert not compile_.failed
    assert counters["stats"]["unique_graphs"] == compile_.graphs == 2
    return torch.stack(seen).tolist()


@pytest.mark.gpu
def test_graphs_compute_what_compiled_steps_do():
    """Draws of dropout included: they are the step's, not those of the recording."""
    plain, graphed = losses(cuda_graphs=False), losses(cuda_graphs=True)
    assert graphed == plain
    assert len(set(plain)) == len(plain)
    torch._dynamo.reset()


@pytest.mark.gpu
def test_a_trial_records_a_graph():
    """A step after the trial launches two: forward and backward."""
    torch._dynamo.reset()
    counters.clear()
    module = started(Compile(required=True, cuda_graphs=True), mesa=1.0, accelerator="gpu")
    assert counters["stats"]["unique_graphs"] == 2  # the model's, and its average's
    assert counters["inductor"]["cudagraph_skips"] == 0
    assert not counters["graph_break"]
    for _ in range(2):  # the first goes without the average, which the trial has in between
        module.zero_grad(set_to_none=True)
        with torch.profiler.profile() as profile:
            step_after(module)
            torch.cuda.synchronize()
    launched = [event.name for event in profile.events() if "GraphLaunch" in event.name]
    assert len(launched) == 2, launched
    torch._dynamo.reset()
