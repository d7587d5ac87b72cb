"""The four-way scan against its equation, direction by direction."""

import pytest
import torch
import torch.nn.functional as F

from semabench.errors import SemabenchError
from semabench.mixers import create_mixer, mixer_options

DIM = 16
TIGHT = {"rtol": 0, "atol": 1e-12}  # float64


def make(**options):
    torch.manual_seed(0)
    mixer = create_mixer("ssm", DIM, 1, **options).double()
    for parameter in mixer.parameters():  # so that no initial value hides a mistake
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer


def grid(H, W, B=2):
    return torch.randn(B, H, W, DIM, dtype=torch.float64, generator=torch.manual_seed(1))


def tokens_in_order(H, W):
    rows = [(i, j) for i in range(H) for j in range(W)]
    columns = [(i, j) for j in range(W) for i in range(H)]
    return rows, columns, rows[::-1], columns[::-1]


def scan(mixer, k, u):
    """y_1 … y_L of direction k for the sequence u (L, C) of one image, a token at a time."""
    rank = mixer.dt_projs_weight.shape[2]
    A = -mixer.A_logs[k * DIM : (k + 1) * DIM].exp()
    D = mixer.Ds[k * DIM : (k + 1) * DIM]
    h, y = torch.zeros_like(A), []
    for u_t in u:
        dt, B, C = (mixer.x_proj_weight[k] @ u_t).split([rank, A.shape[1], A.shape[1]])
        delta = F.softplus(mixer.dt_projs_weight[k] @ dt + mixer.dt_projs_bias[k])[:, None]
        h = (delta * A).exp() * h + delta * B * u_t[:, None]
        y.append(h @ C + D * u_t)
    return torch.stack(y)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (3, 4)])
@pytest.mark.parametrize("options", [{}, {"d_state": 3, "dt_rank": 2}])
@torch.no_grad()
def test_ssm_in_full(size, options):
    mixer = make(**options)
    x = grid(*size)
    expected = torch.zeros_like(x)
    for b, image in enumerate(x):
        for k, order in enumerate(tokens_in_order(*size)):
            rows, columns = (list(index) for index in zip(*order, strict=True))
            expected[b, rows, columns] += scan(mixer, k, image[rows, columns])
    expected = F.layer_norm(expected, (DIM,), mixer.out_norm.weight, mixer.out_norm.bias)
    torch.testing.assert_close(mixer(x), expected, **TIGHT)


def test_every_token_sees_every_other():
    mixer = make()
    x = grid(3, 4, B=1).requires_grad_()
    for i, j in ((0, 0), (1, 2), (2, 3)):
        (gradient,) = torch.autograd.grad(mixer(x)[0, i, j, 0], x)
        assert (gradient.abs().sum(-1) > 0).all()


def test_initialisation_is_mambas():
    torch.manual_seed(0)
    mixer = create_mixer("ssm", 64, 1, d_state=16)
    step = F.softplus(mixer.dt_projs_bias)
    assert 1e-3 <= step.min() < 2e-3
    assert 0.05 < step.max() <= 0.1001
    assert abs(step.log().mean().item() + 4.6) < 0.2  # log-uniform
    assert mixer.dt_projs_weight.abs().max() <= 4**-0.5
    assert mixer.x_proj_weight.abs().max() <= 64**-0.5
    torch.testing.assert_close(mixer.A_logs.exp(), torch.arange(1.0, 17).expand(256, 16))
    assert torch.equal(mixer.Ds, torch.ones(256))


def test_parameters_and_options():
    assert mixer_options("ssm") == {"d_state": 1, "dt_rank": None, "backend": "auto"}
    C, rank = 40, 3  # ceil(40 / 16)
    count = 4 * (C * (rank + 2) + C * rank + 3 * C) + 2 * C
    assert sum(p.numel() for p in create_mixer("ssm", C, 1).parameters()) == count
    for wrong in ({"d_state": 0}, {"dt_rank": 0}):
        with pytest.raises(SemabenchError, match="must be at least 1, not 0"):
            create_mixer("ssm", C, 1, **wrong)
    with pytest.raises(SemabenchError, match="no backend 'cudda'"):
        create_mixer("ssm", C, 1, backend="cudda")
