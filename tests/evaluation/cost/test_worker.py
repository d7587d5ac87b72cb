"""The work of one process, done in this one."""

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.evaluation.cost.meters import PowerMeter, ran_out_of_memory
from semabench.evaluation.cost.plan import plan_jobs
from semabench.evaluation.cost.schema import CostConfig, CostModel
from semabench.evaluation.cost.worker import CostWorker, halve_until_it_fits
from semabench.evaluation.cost.workload import (
    Setting,
    Workload,
    backend_label,
    build_bare,
)
from semabench.training.device import free_memory

META = torch.device("meta")


def setting(**changes):
    values = {"device": "cpu", "precision": "32-true", "channels_last": True}
    return Setting(**{**values, "min_steps": 2, "min_seconds": 0.0, **changes})


def test_a_window_times_the_steps_it_is_told():
    worker = CostWorker(CostModel("sema_nano"), "infer", setting())
    prepared = worker.prepare(32, "eager", 2)
    assert (prepared.batch_size, prepared.steps) == (2, 2)
    window = worker.window(32, "eager", 2, prepared.steps)
    assert window.seconds > 0
    assert window.joules is None
    assert window.peak_memory_mib is None or window.peak_memory_mib > 0


def test_a_training_step_changes_every_weight_and_leaves_no_gradient():
    workload = Workload(CostModel("mila_nano"), 32, "train", setting())
    before = {name: p.detach().clone() for name, p in workload.model.named_parameters()}
    assert workload.steps("eager", 2, 1) > 0
    after = dict(workload.model.named_parameters())
    same = [name for name in before if torch.equal(before[name], after[name])]
    assert same == []
    assert all(parameter.grad is None for parameter in after.values())


def test_inference_changes_nothing():
    workload = Workload(CostModel("mila_nano"), 32, "infer", setting())
    before = {name: t.clone() for name, t in workload.model.state_dict().items()}
    workload.steps("eager", 2, 2)
    assert all(torch.equal(before[n], t) for n, t in workload.model.state_dict().items())


def test_pictures_are_normalised_random_pixels_in_the_layout_asked_for():
    workload = Workload(CostModel("sema_nano"), 48, "infer", setting())
    images, labels = workload.batch(4)
    assert images.shape == (4, 3, 48, 48)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.mean().abs() < 1
    assert labels.max() < 1000


def test_windows_are_long_enough_in_steps_and_in_time():
    workload = Workload(CostModel("sema_nano"), 32, "infer", setting(min_seconds=0.3))
    assert workload.window_steps(0.1) == 3
    assert workload.window_steps(10.0) == 2


def test_out_of_memory_halves_the_batch(monkeypatch):
    worker = CostWorker(CostModel("sema_nano"), "train", setting())
    forward = Workload.forward

    def limited(self, execution):
        run = forward(self, execution)

        class Limited(torch.nn.Module):
            def forward(self, images):
                if len(images) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return run(images)

        return Limited()

    monkeypatch.setattr(Workload, "forward", limited)
    assert worker.prepare(32, "eager", 9).batch_size == 2


def test_memory_held_counts_weights_and_optimiser():
    workload = Workload(CostModel("sema_nano"), 32, "train", setting())
    weights = sum(p.nbytes for p in workload.model.parameters())
    assert workload.held_bytes() == weights + sum(b.nbytes for b in workload.model.buffers())
    workload.steps("eager", 2, 1)
    assert workload.held_bytes() > 2.9 * weights


def test_swin_keeps_its_windows_at_every_resolution():
    for resolution in (224, 512):
        model = build_bare(CostModel("swin_tiny_patch4_window7_224"), resolution, META)
        sizes = {block.window_size for stage in model.layers for block in stage.blocks}
        assert sizes == {(7, 7)}
        assert model(torch.zeros(1, 3, resolution, resolution, device=META)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("fused", "variable", "label"),
    [
        (True, 1, "sdpa"),
        (False, 1, "unfused"),
        (None, 1, "unfused"),
        (None, 2, "sdpa"),
        (False, 2, "unfused"),
    ],
)
def test_swins_attention_is_the_one_asked_for(monkeypatch, fused, variable, label):
    monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", variable)  # TIMM_FUSED_ATTN
    model = build_bare(CostModel("swin_tiny_patch4_window7_224", fused_attention=fused), 224, META)
    assert backend_label(model, META) == label
    deit = build_bare(CostModel("deit_tiny_patch16_224"), 224, META)
    assert backend_label(deit, META) == "sdpa"  # one model's choice is not another's


def test_an_unknown_model_is_one_line():
    with pytest.raises(SemabenchError, match="sema_nano"):
        build_bare(CostModel("sema_nanno"), 32, META)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_on_a_gpu_memory_is_the_models_own_and_energy_is_counted(mode):
    told = setting(device="cuda", precision="bf16-mixed", min_seconds=0.3)
    alone = CostWorker(CostModel("sema_nano"), mode, told)
    beside = CostWorker(CostModel("sema_nano"), mode, told)
    beside.prepare(256, "eager", 4)
    found = {}
    for name, worker in (("alone", alone), ("beside", beside)):
        prepared = worker.prepare(128, "eager", 16)
        free_memory()
        found[name] = worker.window(128, "eager", 16, prepared.steps)
    assert found["alone"].peak_memory_mib > 1
    assert found["beside"].peak_memory_mib < 1.5 * found["alone"].peak_memory_mib
    counts = bool(PowerMeter(torch.device("cuda", 0)))
    for window in found.values():
        watts = counts and window.joules * 16 / window.seconds
        assert 20 < watts < 1500 if counts else window.joules is None


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_on_a_gpu_a_graph_is_one_launch_of_the_same_work(mode):
    told = setting(device="cuda", precision="bf16-mixed", min_seconds=0.1)
    worker = CostWorker(CostModel("sema_nano"), mode, told)
    launched, graph = (
        worker.window(64, name, 16, worker.prepare(64, name, 16).steps)
        for name in ("eager", "graph")
    )
    assert graph.launch_seconds < launched.launch_seconds / 3
    assert graph.seconds < launched.seconds
    # cuBLAS has a workspace of 32 MiB for the stream that is recorded.
    assert graph.peak_memory_mib == pytest.approx(launched.peak_memory_mib, rel=0.3, abs=40)
    busy = worker.busy(64, "graph", 16)
    assert 0 < busy <= 1.2e3 * graph.seconds
    assert busy == pytest.approx(worker.busy(64, "eager", 16), rel=0.3)


def test_no_gpu_no_graph():
    config = CostConfig(models=["sema_nano"], resolutions=[32], executions=["graph"])
    with pytest.raises(SemabenchError, match="executions=graph needs a GPU"):
        plan_jobs(config, setting())


@pytest.mark.gpu
def test_on_a_gpu_compiled_shapes_do_not_disturb_each_other():
    told = setting(device="cuda", precision="bf16-mixed")
    worker = CostWorker(CostModel("sema_nano"), "train", told)
    shapes = [(64, 4), (64, 8), (96, 4)]
    assert all(worker.compile(*shape) for shape in shapes)
    for resolution, size in shapes:
        assert worker.prepare(resolution, "compiled", size).batch_size == size


def limited(limit, error, tried):
    def attempt(size):
        tried.append(size)
        if size > limit:
            raise error
        return f"done with {size}"

    return attempt


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("could not create a primitive"),
        MemoryError(),
    ],
)
def test_the_batch_is_halved_until_it_fits(error):
    tried = []
    assert ran_out_of_memory(error)
    assert halve_until_it_fits(limited(40, error, tried), 256) == (32, "done with 32")
    assert tried == [256, 128, 64, 32]


def test_odd_sizes_halve_too_and_one_picture_is_the_end():
    tried = []
    with pytest.raises(SemabenchError, match=r"batch size 1$"):
        halve_until_it_fits(limited(0, MemoryError(), tried), 7)
    assert tried == [7, 3, 1]
    with pytest.raises(SemabenchError, match=r"batch size 1 \(could not create a primitive\)"):
        halve_until_it_fits(limited(0, RuntimeError("could not create a primitive\n"), tried), 1)


def test_other_errors_are_not_answered_by_a_smaller_batch():
    tried = []
    error = RuntimeError("triton: out of resource: shared memory")
    with pytest.raises(RuntimeError, match="shared memory"):
        halve_until_it_fits(limited(8, error, tried), 16)
    assert tried == [16]
