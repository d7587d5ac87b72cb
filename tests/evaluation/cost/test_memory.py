"""Out of memory halves the batch; other errors do not."""

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.evaluation.cost.memory import halve_until_it_fits, ran_out_of_memory


def limited(limit, error, tried):
    def attempt(size):
        tried.append(size)
        if size > limit:
            raise error
        return f"done with {size}"

    return attempt


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("could not create a primitive"),
        MemoryError(),
    ],
)
def test_the_batch_is_halved_until_it_fits(error):
    tried = []
    assert ran_out_of_memory(error)
    assert halve_until_it_fits(limited(40, error, tried), 256) == (32, "done with 32")
    assert tried == [256, 128, 64, 32]


def test_odd_sizes_halve_too_and_one_picture_is_the_end():
    tried = []
    with pytest.raises(SemabenchError, match=r"batch size 1$"):
        halve_until_it_fits(limited(0, MemoryError(), tried), 7)
    assert tried == [7, 3, 1]
    with pytest.raises(SemabenchError, match=r"batch size 1 \(could not create a primitive\)"):
        halve_until_it_fits(limited(0, RuntimeError("could not create a primitive\n"), tried), 1)


def test_other_errors_are_not_answered_by_a_smaller_batch():
    tried = []
    error = RuntimeError("triton: out of resource: shared memory")
    with pytest.raises(RuntimeError, match="shared memory"):
        halve_until_it_fits(limited(8, error, tried), 16)
    assert tried == [16]
