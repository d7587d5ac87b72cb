"""Plans of Triton launches, with a kernel that only takes notes: no GPU needed."""

import pytest
import torch

pytest.importorskip("triton")

from semabench.ops.selective_scan.triton_backend import (
    BACKWARD,
    FORWARD,
    Config,
    chunk_count,
    config_for,
    layout,
    plan,
)


def planned(config, batch=2, groups=2, channels=24, N=1, L=196, save=True, dtype=torch.bfloat16):
    def rows(*shape):
        return torch.zeros(shape, dtype=dtype)

    dim = groups * channels
    u, B = rows(batch, dim, L), rows(batch, groups, N, L)
    tensors = (u, u, torch.zeros(dim, N), B, B, None, None, None)
    return plan(config, u.device, tuple(map(layout, tensors)), True, 2, save)


class Kernel:
    """Compiles to what counts its launches."""

    def __init__(self):
        self.compilations, self.launches = 0, []

    def __getitem__(self, grid):
        def compile_and_run(*arguments, num_warps):
            self.compilations += 1
            self.launches.append((grid, arguments))
            return Compiled(self)

        return compile_and_run


class Compiled:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *arguments: self.kernel.launches.append((grid, arguments))


@pytest.mark.parametrize("N", [1, 2, 16, 64])
def test_both_passes_cut_the_positions_alike(N):
    assert config_for(FORWARD, N).runs == config_for(BACKWARD, N).runs


@pytest.mark.parametrize(("L", "chunks"), [(1, 1), (128, 1), (129, 2), (3136, 25)])
def test_chunks(L, chunks):
    config = Config(warps=4, entries=8, runs=16)
    assert chunk_count(config, L) == chunks
    assert planned(config, L=L).chunks == chunks


@pytest.mark.parametrize("config", [*FORWARD.values(), *BACKWARD.values()])
@pytest.mark.parametrize("L", [1, 49, 784])
@pytest.mark.parametrize("channels", [1, 7, 96])
def test_programs_cover_every_channel(config, L, channels):
    cut = planned(config, channels=channels, L=L)
    assert cut.grid == (2 * 2 * cut.blocks, 1, 1)
    tile = cut.arguments[-10]
    assert channels <= cut.blocks * tile < channels + tile
    assert 1 <= cut.options["num_warps"] <= config.warps


def test_a_kernel_is_looked_up_once_for_each_layout():
    plan.cache_clear()
    config, kernel = Config(4, 8, 16), Kernel()
    x = torch.zeros(1)
    for _ in range(3):
        planned(config).launch(kernel, x.device, x, None)
    assert kernel.compilations == 1
    assert len(kernel.launches) == 3
    assert all(launch == kernel.launches[0] for launch in kernel.launches)
    for other in ({"L": 197}, {"dtype": torch.float32}, {"N": 3}, {"save": False}):
        planned(config, **other).launch(kernel, x.device, x, None)
    assert kernel.compilations == 5


def test_layouts_tell_dtypes_shapes_strides_and_alignment_apart():
    x = torch.zeros(4, 8)
    others = (x.half(), x.view(8, 4), torch.zeros(8, 4).mT, torch.zeros(33)[1:].view(4, 8))
    assert len({layout(x), *map(layout, others)}) == 5
    assert layout(torch.zeros(4, 8)) == layout(x)
    assert layout(None) is None
