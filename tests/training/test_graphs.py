"""Recording: what it replays, and that nothing is left of one that breaks off."""

import pytest
import torch

from semabench.training.graphs import NotRecordedError, launch_aside, record

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def draw() -> torch.Tensor:
    return torch.rand(4, device=CUDA)


def draw_and_ask() -> torch.Tensor:
    drawn = draw()
    return drawn * float(drawn.sum() > -1)  # waits for the device


def test_a_replay_draws_anew_as_its_seed_says():
    launch_aside(draw, CUDA)
    graph, drawn = record(draw, CUDA)
    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        graph.replay()
        found.append(drawn.clone())
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    torch.manual_seed(1)
    assert torch.equal(draw(), found[0])


def test_after_a_recording_that_breaks_off_draws_go_on_as_seeded():
    """Also those of graphs that had been recorded before."""
    launch_aside(draw, CUDA)
    graph, drawn = record(draw, CUDA)
    torch.manual_seed(3)
    expected = draw()
    launch_aside(draw_and_ask, CUDA)
    with pytest.raises(NotRecordedError) as told:
        record(draw_and_ask, CUDA)
    assert "\n" not in str(told.value)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.manual_seed(3)
    assert torch.equal(draw(), expected)
    torch.manual_seed(3)
    graph.replay()
    assert torch.equal(drawn, expected)
    test_a_replay_draws_anew_as_its_seed_says()


def test_warming_up_takes_one_stream():
    """Or cuBLAS would keep a workspace of 32 MiB for each."""
    streams = {launch_aside(torch.cuda.current_stream, CUDA).cuda_stream for _ in range(3)}
    assert len(streams) == 1
    assert streams != {torch.cuda.current_stream().cuda_stream}
