"""CUDA graphs: warming up beside the main stream, recording, and going on where that fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch

from semabench.errors import first_line

WARMUP = 3  # times that a shape is launched kernel by kernel before it is recorded

Result = TypeVar("Result")


class NotRecordedError(Exception):
    """What has been tried cannot be a graph; its text says why, in one line."""


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for all of it: cuBLAS keeps a workspace for each that it has seen."""
    return torch.cuda.Stream(device)


def launch_aside(launch: Callable[[], Result], device: torch.device) -> Result:
    """Launch on a stream of its own, as what is recorded later must have been once."""
    stream, main = _side_stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        result = launch()
    main.wait_stream(stream)
    return result


def record(
    launch: Callable[[], Result], device: torch.device, pool: Any = None
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """Record what ``launch`` launches, on buffers that stay where they are; it does not run.

    Args:
        launch: has been through `launch_aside`.
        device: of all its tensors.
        pool: of an earlier graph, whose memory may be used again.

    Returns:
        The graph, and what ``launch`` returned: tensors that each replay fills.

    Raises:
        NotRecordedError: it waits for the device, or does what a graph cannot hold.
    """
    torch.cuda.synchronize(device)
    graph, main = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    try:
        # On the stream of the warming up, whose workspaces serve again.
        stream = _side_stream(device)
        with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
            return graph, launch()
    except Exception as error:  # whatever a model does
        torch.cuda.set_stream(main)  # which torch leaves at the recording's
        torch.cuda.synchronize(device)
        _end_broken_recording(device)
        # The last error is often that the recording was ended by the one before.
        reason = first_line(error.__context__ or error)[:160].rstrip(".")
        raise NotRecordedError(reason) from error


def _end_broken_recording(device: torch.device) -> None:
    """Let the generator draw again, which thinks that it still records (torch 2.11).

    A recording that succeeds ends that, too. Its state must remain the same object: graphs that
    were recorded before take their draws from it.
    """
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
        torch.zeros(1, device=device)
