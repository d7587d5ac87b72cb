"""MILA's rotary encoding against complex numbers, one channel pair at a time."""

import cmath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from semabench.errors import SemabenchError
from semabench.ops import rotary
from semabench.ops.rotary import rotary_table


def loop(x):
    _, H, W, C = x.shape
    out = torch.empty_like(x)
    quarter = C // 4
    for b, y, z, pair in torch.cartesian_prod(
        *(torch.arange(n) for n in (x.shape[0], H, W, C // 2))
    ).tolist():
        position = y if pair < quarter else z
        angle = position * 10000 ** (-(pair % quarter) / quarter)
        number = complex(x[b, y, z, 2 * pair], x[b, y, z, 2 * pair + 1]) * cmath.exp(1j * angle)
        out[b, y, z, 2 * pair], out[b, y, z, 2 * pair + 1] = number.real, number.imag
    return out


@settings(max_examples=15, deadline=None)
@given(H=st.integers(1, 5), W=st.integers(1, 5), quarter=st.integers(1, 4))
def test_equals_the_loop(H, W, quarter):
    x = torch.randn(2, H, W, 4 * quarter, dtype=torch.float64)
    torch.testing.assert_close(rotary(x), loop(x), rtol=0, atol=1e-12)


def test_products_depend_on_distance_only():
    q, k = torch.randn(2, 8, dtype=torch.float64)
    q, k = (rotary(x.expand(1, 6, 9, 8))[0] for x in (q, k))
    near = q[1, 2] @ k[3, 7]
    torch.testing.assert_close(q[2, 3] @ k[4, 8], near)
    assert abs(q[1, 2] @ k[3, 8] - near) > 1e-6


def test_official_tables(golden_dir):
    tables = {
        key: table
        for file in ("tiny_64", "tiny_96")
        for key, table in load_file(golden_dir / f"mlla/{file}.safetensors").items()
        if key.endswith("rope.rotations")
    }
    assert len(tables) == 5
    for table in tables.values():
        H, W, pairs, _ = table.shape
        ours = rotary_table(H, W, 2 * pairs, 10000.0, torch.device("cpu"), torch.float32)
        torch.testing.assert_close(ours.movedim(0, -1), table, rtol=0, atol=3e-6)


def test_half_precision_is_rotated_in_float32():
    x = torch.randn(1, 200, 3, 8).bfloat16()
    out = rotary(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, rotary(x.double()).bfloat16(), rtol=0.01, atol=1e-2)


def test_training_after_inference_mode():
    x = torch.randn(1, 7, 13, 4)
    with torch.inference_mode():
        rotary(x)
    x.requires_grad_()
    rotary(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_channels_must_divide_by_four():
    with pytest.raises(SemabenchError, match="4 divides, not 6"):
        rotary(torch.zeros(1, 2, 2, 6))
