"""Models compiled part by part."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from semabench.models import build_model
from semabench.models.compiled import compile_model, leave_uncompiled


@pytest.fixture
def programs(monkeypatch):
    """A counter of what is compiled, in place of inductor, which needs a minute."""
    torch._dynamo.reset()
    counter = CompileCounter()
    compile_ = torch.nn.Module.compile

    def through(self, **options):
        compile_(self, backend=counter, **options)

    monkeypatch.setattr(torch.nn.Module, "compile", through)
    yield counter
    torch._dynamo.reset()


def built(name):
    torch.manual_seed(0)
    return build_model(name, num_classes=4, resolution=32, drop_path_rate=0.2, options={}).train()


@pytest.mark.parametrize(
    ("name", "parts"),
    # Stem, three times downsampling, a block of each stage; the first one's drops nothing, which
    # is a program of its own where another of its stage does.
    [("sema_nano", 8), ("sema_tiny", 9), ("vmamba_tiny_s1l8", 9), ("vim_tiny", 2)],
)
def test_blocks_of_one_shape_are_one_program(name, parts, programs):
    model = built(name)
    compile_model(model)
    model(torch.zeros(2, 3, 64, 64))
    assert programs.frame_count == parts
    model(torch.zeros(2, 3, 64, 64))
    assert programs.frame_count == parts


def test_a_timm_model_is_one_program(programs):
    model = build_model("resnet10t", num_classes=4, resolution=32, options={})
    compile_model(model)
    model(torch.zeros(2, 3, 64, 64))
    assert programs.frame_count == 1


@pytest.mark.parametrize("name", ["mila_nano", "vmamba_nano", "vim_nano"])
def test_numbers_and_draws_are_the_same(name, programs):
    results = []
    for compiled in (False, True):
        model = built(name)
        if compiled:
            compile_model(model)
        loss = model(torch.randn(8, 3, 32, 32)).square().sum()
        loss.backward()
        results.append([loss.detach(), *[p.grad for p in model.parameters()], torch.rand(1)])
    assert programs.frame_count > 0
    for without, with_it in zip(*results, strict=True):
        assert torch.equal(without, with_it)


def test_what_is_compiled_serves_again(programs):
    model, images = built("sema_nano"), torch.zeros(2, 3, 32, 32)
    compile_model(model)
    model(images)
    compiled = programs.frame_count, programs.op_count
    leave_uncompiled(model)
    model(torch.zeros(3, 3, 32, 32))  # would be another program
    assert (programs.frame_count, programs.op_count) == compiled
    compile_model(model)
    model(images)
    assert (programs.frame_count, programs.op_count) == compiled
