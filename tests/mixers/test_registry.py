"""Mixers by name, and what is said of wrong names and options."""

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.mixers import Mixer, create_mixer, list_mixers, mixer_options, register_mixer
from semabench.mixers import base as registry

ALL = [
    "sema",
    "window",
    "mean",
    "softmax",
    "linear",
    "mila",
    "focused",
    "rala",
    "ssd",
    "ssm",
    "none",
]
DIM, HEADS = 16, 2


def test_all_are_registered():
    assert set(ALL) <= set(list_mixers())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("semma", 16, 2, {}), "Did you mean 'sema'"),
        (("sema", 16, 2, {"widow_size": 7}), "Did you mean 'window_size'"),
        (("mean", 16, 2, {"scale": True}), "'mean' has no option 'scale'"),
        (("mila", 16, 2, {"window_size": 7}), "no option 'window_size'"),
        (("focused", 16, 2, {"lepe": True}), "no option 'lepe'"),
        (("focused", 16, 2, {"kernel_size": 4}), "must be odd"),
        (("sema", 16, 3, {}), "num_heads=3 does not divide the 16"),
        (("mila", 6, 1, {}), "4 divides, not 6"),
        (("sema", 16, 2, {"backend": "flash"}), "no backend 'flash'"),
        (("linear", 16, 2, {"backend": "sdpa"}), "no backend 'sdpa'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    name, dim, heads, options = arguments
    with pytest.raises(SemabenchError, match=message) as error:
        create_mixer(name, dim, heads, **options)
    assert "\n" not in str(error.value)


def test_a_new_mixer_takes_one_class(monkeypatch):
    monkeypatch.setattr(registry, "_MIXERS", dict(registry._MIXERS))

    @register_mixer("maximum")
    class Maximum(Mixer):
        def __init__(self, dim, num_heads, *, gain: float = 1.0):
            super().__init__(dim, num_heads, value_projection=True, lepe=False, rope=False)
            self.gain = gain

        def attend(self, q, k, v):
            return self.gain * v.amax(dim=(1, 2), keepdim=True).expand_as(v)

    assert mixer_options("maximum") == {"gain": 1.0}
    mixer = create_mixer("maximum", DIM, HEADS, gain=2.0)
    assert mixer.name == "maximum"
    assert mixer(torch.randn(1, 3, 4, DIM)).shape == (1, 3, 4, DIM)
    with pytest.raises(SemabenchError, match="registered already"):
        register_mixer("maximum")(Maximum)
