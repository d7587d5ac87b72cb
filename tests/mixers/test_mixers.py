"""Every mixer: its equation in the plainest form, its sizes, its options, its errors."""

import pytest
import torch
import torch.nn.functional as F

from semabench.errors import SemabenchError
from semabench.mixers import create_mixer, list_mixers
from semabench.ops import rotary
from semabench.ops.linear_attention import state_product

ALL = list_mixers()
DIM, HEADS = 16, 2
TIGHT = {"rtol": 0, "atol": 1e-12}  # float64


def make(name, **options):
    torch.manual_seed(0)
    return create_mixer(name, DIM, HEADS, **options).double()


def grid(H, W, B=2):
    return torch.randn(B, H, W, DIM, dtype=torch.float64, generator=torch.manual_seed(1))


def projections(mixer, x):
    """Queries, keys and values as (B, heads, n, d), straight from the weights."""
    C = x.shape[-1]
    layer = mixer.qkv if mixer.value_projection else mixer.qk
    parts = [
        F.linear(x, w, b) for w, b in zip(layer.weight.split(C), layer.bias.split(C), strict=True)
    ]
    q, k, v = parts if len(parts) == 3 else (*parts, x)
    return q, k, v


def split(x):
    return x.flatten(1, 2).unflatten(-1, (HEADS, -1)).transpose(1, 2)


def join(x, like):
    return x.transpose(1, 2).reshape(like.shape)


def lepe(mixer, v):
    C = v.shape[-1]
    local = F.conv2d(v.movedim(-1, 1), mixer.lepe.weight, mixer.lepe.bias, padding=1, groups=C)
    return local.movedim(1, -1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (8, 8), (9, 15)])
def test_any_size_and_gradients_reach_every_parameter(name, size):
    mixer = make(name)
    x = grid(*size).requires_grad_()
    y = mixer(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    for key, parameter in mixer.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", [n for n in ALL if n != "none"])
def test_no_parameter_goes_unused(name):
    mixer = make(name)
    mixer(grid(9, 9)).square().sum().backward()
    for key, parameter in mixer.named_parameters():
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", ALL)
def test_nothing_depends_on_the_size(name):
    mixer = make(name)
    before = {key: value.clone() for key, value in mixer.state_dict().items()}
    for size in ((4, 4), (9, 5)):
        mixer(grid(*size))
    assert mixer.state_dict().keys() == before.keys()


@pytest.mark.parametrize("name", ALL)
def test_pictures_do_not_mix(name):
    mixer = make(name)
    x = grid(9, 8, B=3)
    torch.testing.assert_close(mixer(x)[1:2], mixer(x[1:2]), **TIGHT)


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_autocast(name):
    mixer = make(name).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixer(grid(9, 8).float())
    assert torch.isfinite(y).all()
    expected = mixer(grid(9, 8).float())
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("mean", "none")])
def test_backends_agree(name):
    x = grid(9, 8)
    auto = make(name)
    reference = make(name, backend="reference")
    assert reference.resolved_backend() == "reference"
    assert auto.resolved_backend() != "reference"
    torch.testing.assert_close(auto(x), reference(x), **TIGHT)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("rope", [True, False])
def test_softmax_in_full(scale, rope):
    mixer = make("softmax", scale=scale, rope=rope)
    x = grid(4, 6)
    q, k, v = projections(mixer, x)
    q, k = (rotary(q), rotary(k)) if rope else (q, k)
    logits = split(q) @ split(k).transpose(-2, -1) * ((DIM // HEADS) ** -0.5 if scale else 1)
    expected = join(logits.softmax(-1) @ split(v), x) + lepe(mixer, v)
    torch.testing.assert_close(mixer(x), expected, **TIGHT)


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"rope": True}, {"lepe": False}])
def test_window_that_covers_the_grid_is_softmax(options):
    x = grid(5, 7)
    for window in (7, 20):
        torch.testing.assert_close(
            make("window", window_size=window, **options)(x), make("softmax", **options)(x), **TIGHT
        )
    small = make("window", window_size=3, **options)(x)
    assert (small - make("softmax", **options)(x)).abs().max() > 1e-3


def test_sema_is_window_plus_mean():
    x = grid(9, 10)
    sema, window, mean = make("sema"), make("window"), make("mean", lepe=False)
    mean.v.weight.data = sema.qkv.weight.data[2 * DIM :]
    mean.v.bias.data = sema.qkv.bias.data[2 * DIM :]
    torch.testing.assert_close(sema(x), window(x) + mean(x), **TIGHT)


def test_none_is_the_identity():
    x = grid(3, 5)
    assert make("none")(x) is x
    assert not list(make("none").parameters())


def test_mean_in_full():
    mixer = make("mean", lepe=False, value_projection=False)
    x = grid(3, 5)
    torch.testing.assert_close(mixer(x), x.mean(dim=(1, 2), keepdim=True).expand_as(x), **TIGHT)
    assert not list(mixer.parameters())


@pytest.mark.parametrize("name", ["linear", "mila"])
def test_linear_in_full(name):
    mixer = make(name)
    x = grid(4, 6)
    q, k, v = projections(mixer, x)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    qr, kr = (rotary(q), rotary(k)) if name == "mila" else (q, k)
    weights = split(qr) @ split(kr).transpose(-2, -1)
    total = (split(q) @ split(k).transpose(-2, -1)).sum(-1, keepdim=True) + 24 * 1e-6
    expected = join(weights / total @ split(v), x) + lepe(mixer, v)
    torch.testing.assert_close(mixer(x), expected, **TIGHT)


def test_mila_is_linear_with_other_defaults():
    mixer = make("linear", value_projection=False, rope=True)
    torch.testing.assert_close(make("mila")(grid(5, 4)), mixer(grid(5, 4)), **TIGHT)


def test_focused_in_full():
    mixer = make("focused")
    torch.nn.init.normal_(mixer.scale)
    x = grid(4, 6)
    q, k, v = projections(mixer, x)

    def focus(t):
        t = (F.relu(t) + 1e-6) / F.softplus(mixer.scale)
        cube = t**3
        return cube / cube.norm(dim=-1, keepdim=True) * t.norm(dim=-1, keepdim=True)

    weights = split(focus(q)) @ split(focus(k)).transpose(-2, -1)
    attended = join(weights / (weights.sum(-1, keepdim=True) + 24 * 1e-6) @ split(v), x)
    restored = []
    for head in v.split(DIM // HEADS, dim=-1):  # the same kernels for every head
        local = F.conv2d(
            head.movedim(-1, 1), mixer.dwc.weight, mixer.dwc.bias, padding=2, groups=DIM // HEADS
        )
        restored.append(local.movedim(1, -1))
    torch.testing.assert_close(mixer(x), attended + torch.cat(restored, dim=-1), **TIGHT)


def test_focusing_survives_inputs_that_overflow_or_vanish():
    mixer = make("focused").float()
    for size in (1e-12, 1e15):
        features = mixer.features(torch.full((1, 1, 1, HEADS, DIM // HEADS), size))
        assert torch.isfinite(features).all()


def test_window_size_may_change_after_construction():
    x = grid(12, 12)
    mixer = make("sema")
    mixer.window_size = 4
    torch.testing.assert_close(mixer(x), make("sema", window_size=4)(x), **TIGHT)
    mixer.window_size = [3, 6]
    assert mixer.window_size == (3, 6)
    for wrong in (0, (3, -1), (1, 2, 3), 2.5):
        with pytest.raises(SemabenchError, match="one or two integers >= 1"):
            mixer.window_size = wrong


def test_shift_moves_the_windows_by_half():
    x = grid(8, 8)
    shifted = make("window", window_size=4, shift=True, lepe=False)
    plain = make("window", window_size=4, lepe=False)
    inner = shifted(x)[:, 2:6, 2:6]  # the window that starts at (2, 2)
    torch.testing.assert_close(inner, plain(x[:, 2:6, 2:6]), **TIGHT)


@pytest.mark.parametrize("backend", ["reference", "kv"])
@pytest.mark.parametrize("rope", [False, True])
def test_rala_is_the_official_forward_pass(backend, rope):
    """qhfan/RALA, classfication/RALA.py, GateLinearAttentionNoSilu, with our RoPE and LePE."""
    mixer = make("rala", rope=rope, backend=backend)
    x = grid(5, 4)
    q, k, v = projections(mixer, x)
    q, k = (F.elu(split(t)) + 1 for t in (q, k))
    logits = (DIM // HEADS) ** -0.5 * q.mean(-2, keepdim=True) @ k.transpose(-1, -2)
    k = k * logits.softmax(-1).transpose(-1, -2) * 20
    turned = [split(rotary(join(t, x))) if rope else t for t in (q, k)]
    weights = turned[0] @ turned[1].transpose(-1, -2)
    total = (q @ k.mean(-2, keepdim=True).transpose(-1, -2) + 1e-6) * 20
    y = join(weights @ split(v) / total, x) + lepe(mixer, v)
    expected = y * F.linear(x, mixer.modulation.weight, mixer.modulation.bias)
    torch.testing.assert_close(mixer(x), expected, **TIGHT)


@pytest.mark.parametrize("backend", ["reference", "kv"])
def test_ssd_is_the_official_sum_over_tokens(backend):
    """YuHengsss/VSSD, classification/models/mamba2.py, non_casual_linear_attn, token by token."""
    mixer = make("ssd", d_state=3, backend=backend)
    mixer.A_log.data.uniform_(-1, 1)
    mixer.D.data.uniform_(-1, 1)
    x = grid(3, 5)
    B, C, step = (x @ mixer.state_proj.weight.T).flatten(1, 2).split([3, 3, HEADS], -1)
    amount = F.softplus(step + mixer.dt_bias) * mixer.A_log.exp()
    values = x.flatten(1, 2).unflatten(-1, (HEADS, -1))
    y = values * mixer.D[:, None]
    for i in range(15):
        for j in range(15):
            near = (C[:, i] * B[:, j]).sum(-1)[:, None, None]
            y[:, i] = y[:, i] + near * amount[:, j, :, None] * values[:, j]
    expected = mixer.out_norm(y.flatten(2)).view_as(x)
    torch.testing.assert_close(mixer(x), expected, **TIGHT)


def test_ssd_stays_finite_where_its_sum_leaves_half_precision():
    torch.manual_seed(0)
    mixer = create_mixer("ssd", DIM, HEADS)
    x = 3 * torch.randn(1, 128, 128, DIM)
    with torch.no_grad():
        expected = mixer(x)
        B, C, _ = mixer.state_proj(x).split([64, 64, HEADS], dim=-1)
        values = x.unflatten(-1, (HEADS, -1))
        assert state_product(C, B, 30 * values).abs().max() > torch.finfo(torch.half).max
        found = mixer.half()(x.half())
    assert torch.isfinite(found).all()
    assert (found - expected).abs().max() < 0.1


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("rala", {}, 4 * DIM * (DIM + 1) + 10 * DIM),
        ("ssd", {"d_state": 3}, DIM * (6 + HEADS) + 3 * HEADS + 2 * DIM),
        ("sema", {}, 3 * DIM * (DIM + 1) + 10 * DIM),
        ("sema", {"lepe": False}, 3 * DIM * (DIM + 1)),
        ("sema", {"value_projection": False}, 2 * DIM * (DIM + 1) + 10 * DIM),
        ("mila", {}, 2 * DIM * (DIM + 1) + 10 * DIM),
        ("mean", {}, DIM * (DIM + 1) + 10 * DIM),
        ("softmax", {}, 3 * DIM * (DIM + 1) + 10 * DIM),
        ("focused", {}, 3 * DIM * (DIM + 1) + DIM + 26 * DIM // HEADS),
    ],
)
def test_switches_add_and_remove_weights(name, options, parameters):
    assert sum(p.numel() for p in make(name, **options).parameters()) == parameters
