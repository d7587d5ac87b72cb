"""Linear attention against a loop over tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semabench.errors import SemabenchError
from semabench.ops import linear_attention, linear_attention_backend
from semabench.ops.linear_attention import BACKENDS

TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # float64
EPS = 1e-6


def loop(q, k, v, qn, kn):
    B, H, W, heads, _ = q.shape
    out = torch.empty_like(v)
    tokens = [(y, x) for y in range(H) for x in range(W)]
    for b in range(B):
        for h in range(heads):
            for i in tokens:
                numerator = sum((q[b, *i, h] @ k[b, *j, h]) * v[b, *j, h] for j in tokens)
                denominator = sum(qn[b, *i, h] @ kn[b, *j, h] for j in tokens)
                out[b, *i, h] = numerator / (denominator + len(tokens) * EPS)
    return out


def features(B, H, W, heads, d=4, count=5):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand(B, H, W, heads, d, generator=generator, dtype=torch.float64) + 0.1
        for _ in range(count)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12, deadline=None)
@given(
    H=st.integers(1, 5),
    W=st.integers(1, 5),
    B=st.integers(1, 2),
    heads=st.integers(1, 2),
    normalizers=st.booleans(),
)
def test_equals_the_loop(backend, H, W, B, heads, normalizers):
    q, k, v, qn, kn = features(B, H, W, heads)
    extra = {"q_normalizer": qn, "k_normalizer": kn} if normalizers else {}
    out = linear_attention(q, k, v, eps=EPS, backend=backend, **extra)
    expected = loop(q, k, v, *((qn, kn) if normalizers else (q, k)))
    torch.testing.assert_close(out, expected, **TIGHT)


def test_gradients_agree_with_the_reference():
    inputs = [x.requires_grad_() for x in features(2, 5, 3, 2)]
    target = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64)
    gradients = []
    for backend in BACKENDS:
        q, k, v, qn, kn = inputs
        out = linear_attention(q, k, v, q_normalizer=qn, k_normalizer=kn, backend=backend)
        gradients.append(torch.autograd.grad((out * target).sum(), inputs))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_sum_to_one(backend):
    q, k, v, *_ = features(1, 4, 7, 2)
    out = linear_attention(q, k, torch.ones_like(v), eps=0.0, backend=backend)
    torch.testing.assert_close(out, torch.ones_like(v), **TIGHT)


def test_order_of_tokens_does_not_matter():
    q, k, v, *_ = features(1, 4, 6, 2)
    order = torch.randperm(24)

    def shuffle(x):
        return x.flatten(1, 2)[:, order].unflatten(1, (4, 6))

    out = linear_attention(*(shuffle(x) for x in (q, k, v)))
    torch.testing.assert_close(out, shuffle(linear_attention(q, k, v)), **TIGHT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_with_vanishing_keys(dtype):
    q, k, v = (x.to(dtype) for x in features(1, 64, 64, 1, count=3))
    out = linear_attention(q, torch.zeros_like(k), v)
    assert out.dtype == dtype
    assert torch.isfinite(out).all()


def test_half_precision_agrees_with_float64():
    q, k, v = features(1, 32, 32, 2, d=16, count=3)
    out = linear_attention(*(x.bfloat16() for x in (q, k, v)))
    torch.testing.assert_close(out.double(), linear_attention(q, k, v), rtol=0.02, atol=0)


def test_backend_names():
    assert linear_attention_backend() in BACKENDS
    with pytest.raises(SemabenchError, match="Did you mean 'reference'"):
        linear_attention_backend("refrence")
