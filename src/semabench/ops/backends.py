"""Backend names of an op: what "auto" means, and what to say about an unknown name."""

from __future__ import annotations

from collections.abc import Sequence

from semabench.errors import SemabenchError, nearest


def resolve(op: str, backend: str, available: Sequence[str], auto: str) -> str:
    """Return the backend that ``backend`` stands for: itself, or ``auto`` for ``"auto"``.

    Raises:
        SemabenchError: ``backend`` is neither "auto" nor one of ``available``.
    """
    if backend == "auto":
        return auto
    if backend not in available:
        hint = nearest(str(backend), ["auto", *available])
        raise SemabenchError(f"{op} has no backend '{backend}'.{hint}")
    return backend
