"""SEMA's attention against a loop over tokens that shares no code with it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from semabench.errors import SemabenchError
from semabench.ops import window_mean, window_mean_backend
from semabench.ops.window_mean import BACKENDS

TIGHT = {"rtol": 0, "atol": 1e-12}  # float64


def loop(q, k, v, window, shift, scale, mean):
    """One token at a time, in plain words: who is in my window, their softmax, the mean of all."""
    B, H, W, heads, _ = q.shape
    out = torch.empty_like(v)

    def same(a, b, length, size, move):
        if size >= length:
            return True
        return math.floor((a - move) / size) == math.floor((b - move) / size)

    tokens = [(y, x) for y in range(H) for x in range(W)]
    for b in range(B):
        for h in range(heads):
            average = sum(v[b, y, x, h] for y, x in tokens) / len(tokens)
            for y, x in tokens:
                mine = [
                    (j, i)
                    for j, i in tokens
                    if same(y, j, H, window, shift) and same(x, i, W, window, shift)
                ]
                weights = [math.exp(scale * float(q[b, y, x, h] @ k[b, j, i, h])) for j, i in mine]
                total = sum(w * v[b, j, i, h] for w, (j, i) in zip(weights, mine, strict=True))
                out[b, y, x, h] = total / sum(weights) + (average if mean else 0)
    return out


def random_qkv(B, H, W, heads, d, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, W, heads, d, generator=generator, dtype=dtype) for _ in range(3)]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=25, deadline=None)
@given(
    H=st.integers(1, 7),
    W=st.integers(1, 7),
    window_shift=st.integers(1, 5).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w - 1))),
    B=st.integers(1, 2),
    heads=st.integers(1, 2),
    scaled=st.booleans(),
    mean=st.booleans(),
)
def test_equals_the_loop(backend, H, W, window_shift, B, heads, scaled, mean):
    window, shift = window_shift
    q, k, v = random_qkv(B, H, W, heads, d=4)
    scale = None if scaled else 1.0
    out = window_mean(q, k, v, window, shift=shift, scale=scale, mean=mean, backend=backend)
    expected = loop(q, k, v, window, shift, 0.5 if scaled else 1.0, mean)
    torch.testing.assert_close(out, expected, **TIGHT)


@settings(max_examples=25, deadline=None)
@given(
    H=st.integers(1, 17),
    W=st.integers(1, 17),
    window_shift=st.integers(1, 8).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w - 1))),
)
def test_gradients_agree_with_the_reference(H, W, window_shift):
    window, shift = window_shift
    inputs = [x.requires_grad_() for x in random_qkv(2, H, W, 2, 4)]
    target = torch.randn(2, H, W, 2, 4, dtype=torch.float64)
    gradients = {}
    for backend in BACKENDS:
        out = window_mean(*inputs, window, shift=shift, backend=backend)
        gradients[backend] = torch.autograd.grad((out * target).sum(), inputs)
    for fast, plain in zip(gradients["sdpa"], gradients["reference"], strict=True):
        torch.testing.assert_close(fast, plain, **TIGHT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_analytic_gradient(backend):
    inputs = [x.requires_grad_() for x in random_qkv(1, 3, 5, 1, 2)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: window_mean(q, k, v, 2, shift=1, backend=backend), inputs
    )


def test_windows_need_not_be_square():
    q, k, v = random_qkv(1, 6, 8, 2, 4)
    rows = window_mean(q, k, v, (6, 4), mean=False)  # each half is softmax attention of its own
    for half in (slice(0, 4), slice(4, 8)):
        x = [t[:, :, half].flatten(1, 2).transpose(1, 2) for t in (q, k, v)]
        alone = scaled_dot_product_attention(*x).transpose(1, 2).unflatten(1, (6, 4))
        torch.testing.assert_close(rows[:, :, half], alone, **TIGHT)


@pytest.mark.parametrize("shift", [0, 2])
def test_padding_is_no_token(shift):
    """A grid of 5×5 in windows of 3: a token in a cut-off window sees the tokens there, no zeros.

    Logits below -800 would make zero logits, those of padding, win any softmax they enter.
    """
    q, k, v = random_qkv(1, 5, 5, 1, 4)
    q, k = torch.full_like(q, 20.0), torch.full_like(k, -20.0)
    v = torch.ones_like(v)
    out = window_mean(q, k, v, 3, shift=shift)
    torch.testing.assert_close(out, torch.full_like(v, 2.0), **TIGHT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mean_is_added_once_per_channel(backend):
    q, k, v = random_qkv(2, 7, 5, 2, 3)
    with_mean = window_mean(q, k, v, 3, backend=backend)
    without = window_mean(q, k, v, 3, mean=False, backend=backend)
    expected = v.mean(dim=(1, 2), keepdim=True).expand_as(v)
    torch.testing.assert_close(with_mean - without, expected, **TIGHT)


def test_moving_by_whole_windows_moves_the_output():
    q, k, v = random_qkv(1, 6, 9, 1, 4)
    moved = window_mean(*(x.roll((3, -6), (1, 2)) for x in (q, k, v)), 3)
    torch.testing.assert_close(moved, window_mean(q, k, v, 3).roll((3, -6), (1, 2)), **TIGHT)


def test_order_inside_the_image_matters_only_by_window():
    q, k, v = random_qkv(1, 4, 4, 1, 4)
    flipped = window_mean(*(x.flip(1, 2) for x in (q, k, v)), 2)
    torch.testing.assert_close(flipped, window_mean(q, k, v, 2).flip(1, 2), **TIGHT)


def test_one_window_is_full_attention_and_does_not_shift():
    q, k, v = random_qkv(2, 3, 5, 2, 4)
    x = [t.flatten(1, 2).transpose(1, 2) for t in (q, k, v)]
    full = scaled_dot_product_attention(*x).transpose(1, 2).reshape(v.shape)
    for shift in (0, 3):
        torch.testing.assert_close(window_mean(q, k, v, 7, shift=shift, mean=False), full, **TIGHT)


def test_strided_inputs():
    """Queries, keys and values cut out of one projection, as mixers hand them over."""
    qkv = torch.randn(2, 5, 6, 3, 2, 4, dtype=torch.float64)
    q, k, v = qkv.unbind(3)
    expected = window_mean(*(x.contiguous() for x in (q, k, v)), 4, shift=1)
    torch.testing.assert_close(window_mean(q, k, v, 4, shift=1), expected, **TIGHT)


def test_bfloat16_mean_of_many_values():
    """256×256 values near 1: a sum kept in bfloat16 would stop growing at 256."""
    v = torch.ones(1, 256, 256, 1, 8, dtype=torch.bfloat16)
    v[:, ::2] = 1.5
    zero = torch.zeros_like(v)
    out = window_mean(zero, zero, v, 8)
    torch.testing.assert_close(out, torch.full_like(out, 2.5), rtol=0, atol=0)


def test_half_precision_agrees_with_float32():
    q, k, v = random_qkv(2, 10, 10, 2, 16, dtype=torch.float32)
    expected = window_mean(q, k, v, 7)
    out = window_mean(*(x.bfloat16() for x in (q, k, v)), 7)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.04)


def test_compiles_whole():
    compiled = torch.compile(window_mean, fullgraph=True, backend="eager", dynamic=False)
    for H, W in ((7, 7), (5, 9), (14, 14)):
        q, k, v = random_qkv(1, H, W, 2, 4)
        torch.testing.assert_close(
            compiled(q, k, v, 7, shift=2), window_mean(q, k, v, 7, shift=2), **TIGHT
        )


def test_training_after_inference_mode():
    """Tables cached during an evaluation must serve a training step."""
    q, k, v = random_qkv(1, 11, 13, 1, 4)
    with torch.inference_mode():
        window_mean(q, k, v, 4, shift=1)
    q.requires_grad_()
    window_mean(q, k, v, 4, shift=1).sum().backward()
    assert torch.isfinite(q.grad).all()


def test_auto_names_a_backend():
    assert window_mean_backend() in BACKENDS
    assert window_mean_backend("reference") == "reference"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window_size": 0}, "window_size must be at least 1"),
        ({"window_size": 3, "shift": 3}, r"shift must lie in \[0, window_size"),
        ({"window_size": 3, "shift": -1}, r"shift must lie in \[0, window_size"),
        ({"window_size": 3, "backend": "sdp"}, "Did you mean 'sdpa'"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(SemabenchError, match=message):
        window_mean(*random_qkv(1, 4, 4, 1, 2), **kwargs)
