"""The named models: their sizes, and that a mixer is all that an option changes."""

import pytest
import timm
import torch

from semabench.errors import SemabenchError
from semabench.models import model_names


def parameters(name, **kwargs):
    with torch.device("meta"):
        model = timm.create_model(name, **kwargs)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [("mila_tiny", 24_392_200), ("mila_small", 43_015_048), ("mila_base", 95_983_960)],
)
def test_mila_has_the_official_number_of_parameters(name, count):
    assert parameters(name) == count


@pytest.mark.parametrize(
    ("name", "millions"), [("sema_tiny", 26.0), ("sema_small", 46.1), ("sema_base", 102.9)]
)
def test_sema_has_the_predicted_number_of_parameters(name, millions):
    assert parameters(name) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("family", ["sema", "mila", "linear", "vmamba", "vim", "probe"])
def test_nano_is_small(family):
    assert parameters(f"{family}_nano", num_classes=10) <= 1_000_000


def test_all_names_are_known_to_timm():
    assert len(model_names()) == 15 + 1 + 7 + 6
    assert all(timm.is_model(name) for name in model_names())


@pytest.mark.parametrize(
    ("one", "kwargs", "other"),
    [
        ("sema_nano", {"mixer": "mila"}, "mila_nano"),
        ("mila_nano", {"mixer": "sema"}, "sema_nano"),
        ("sema_nano", {"mixer": "linear"}, "linear_nano"),
    ],
)
def test_a_name_is_a_size_and_a_mixer(one, kwargs, other):
    torch.manual_seed(0)
    a = timm.create_model(one, **kwargs).eval()
    torch.manual_seed(0)
    b = timm.create_model(other).eval()
    assert str(a) == str(b)
    for (key, x), (other_key, y) in zip(
        a.state_dict().items(), b.state_dict().items(), strict=True
    ):
        assert key == other_key
        assert torch.equal(x, y)
    x = torch.randn(1, 3, 48, 48)
    assert torch.equal(a(x), b(x))


def test_the_mixer_option_changes_the_mixer_only():
    def rest(**kwargs):
        return {
            key: value.shape
            for key, value in timm.create_model("sema_nano", **kwargs).state_dict().items()
            if ".mixer." not in key
        }

    for mixer in ("window", "mean", "softmax", "linear", "mila", "focused", "ssm", "none"):
        assert rest(mixer=mixer) == rest()


def test_pretrained_is_refused():
    with pytest.raises(SemabenchError, match="No pretrained weights of sema_tiny are known"):
        timm.create_model("sema_tiny", pretrained=True)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("sema_nano", 18052.3340809966),
        ("mila_nano", 17629.41254489012),
        ("vmamba_nano", 53544.059958255035),
        ("vim_nano", 27700.83111945424),
    ],
)
def test_a_seed_gives_the_initial_weights_that_it_always_gave(name, total):
    """Parts that are built in another order draw others, and every result changes."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    found = sum(p.double().abs().sum().item() for p in model.parameters())
    assert found == pytest.approx(total, rel=1e-7)
