"""What is heard of a model is what it attends with: its output follows from it."""

import pytest
import timm
import torch

from semabench.errors import SemabenchError
from semabench.evaluation.dispersion.trained import attention_layers, listening
from semabench.mixers import Mixer
from semabench.models import build_model
from semabench.ops.generalized_attention import generalized_attention


def hear(model, pictures):
    layers = attention_layers(model, "model")
    heard = {}
    outputs = {}
    hooks = [
        layer.module.register_forward_hook(
            lambda _, __, output, name=layer.name: outputs.update({name: output})
        )
        for layer in layers
    ]
    with (
        torch.no_grad(),
        listening(layers, lambda layer, q, k, v: heard.update({layer.name: (layer, q, k, v)})),
    ):
        model(pictures)
    for hook in hooks:
        hook.remove()
    return heard, outputs


@pytest.mark.parametrize("mixer", ["softmax", "window", "linear", "mila"])
def test_the_output_of_each_mixer_follows_from_what_is_heard(mixer):
    torch.manual_seed(0)
    options = {"lepe": False}
    model = build_model("sema_nano", num_classes=3, resolution=48, mixer=mixer, options=options)
    heard, outputs = hear(model.eval().double(), torch.randn(2, 3, 48, 48).double())
    assert len(heard) == 5  # depths 1-1-2-1
    assert [layer.heads for layer, *_ in heard.values()] == [1, 2, 4, 4, 8]
    for name, (layer, q, k, v) in heard.items():
        assert isinstance(layer.module, Mixer)
        expected = generalized_attention(layer.kernel, q, k, v).flatten(3)
        torch.testing.assert_close(outputs[name], expected, rtol=0, atol=1e-10)


def test_timms_vision_transformer_is_heard_with_its_class_token():
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    heard, outputs = hear(model.eval().double(), torch.randn(2, 3, 32, 32).double())
    assert list(heard) == ["blocks.0.attn", "blocks.1.attn"]
    for name, (layer, q, k, v) in heard.items():
        assert q.shape == (2, 1, 5, 3, 64)
        mixed = generalized_attention(layer.kernel, q, k, v).flatten(3)[:, 0]
        torch.testing.assert_close(outputs[name], layer.module.proj(mixed), rtol=0, atol=1e-10)


def test_nothing_listens_once_it_is_over():
    model = build_model("sema_nano", num_classes=3, resolution=32, options={}).eval()
    heard = []
    layers = attention_layers(model, "sema_nano")
    with pytest.raises(RuntimeError), listening(layers, lambda *_: heard.append(1)):
        raise RuntimeError
    model(torch.zeros(1, 3, 32, 32))
    assert heard == []


@pytest.mark.parametrize(
    ("name", "mixer"), [("sema_nano", "mean"), ("sema_nano", "ssm"), ("resnet18", None)]
)
def test_models_without_queries_and_keys_are_refused_by_those_that_have(name, mixer):
    model = build_model(name, num_classes=3, resolution=32, mixer=mixer, options={})
    with pytest.raises(SemabenchError, match=r"sema, .*softmax") as error:
        attention_layers(model, name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
