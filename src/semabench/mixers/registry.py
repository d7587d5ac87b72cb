"""Mixers by name, and their options by signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from semabench.errors import SemabenchError, nearest
from semabench.mixers.base import Mixer

_MIXERS: dict[str, type[Mixer]] = {}
M = TypeVar("M", bound=type[Mixer])


def register_mixer(name: str) -> Callable[[M], M]:
    """Class decorator: make a mixer known under ``name``."""

    def register(cls: M) -> M:
        if name in _MIXERS:
            raise SemabenchError(f"A mixer named '{name}' is registered already.")
        cls.name = name
        _MIXERS[name] = cls
        return cls

    return register


def list_mixers() -> list[str]:
    """Return the names of all mixers."""
    return list(_MIXERS)


def headless_mixers() -> list[str]:
    """Return the names of the mixers to which ``num_heads`` makes no difference."""
    return [name for name, mixer in _MIXERS.items() if not mixer.has_heads]


def mixer_options(name: str) -> dict[str, Any]:
    """Return the options of a mixer with their defaults.

    Raises:
        SemabenchError: there is no such mixer.
    """
    if name not in _MIXERS:
        raise SemabenchError(f"No mixer is named '{name}'.{nearest(str(name), _MIXERS)}")
    parameters = inspect.signature(_MIXERS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def create_mixer(name: str, dim: int, num_heads: int, **options: Any) -> Mixer:
    """Create a mixer on ``dim`` channels.

    Raises:
        SemabenchError: unknown name, an option this mixer does not have, or a value out of range.
    """
    known = mixer_options(name)
    for option in options:
        if option not in known:
            hint = nearest(option, known)
            raise SemabenchError(f"The mixer '{name}' has no option '{option}'.{hint}")
    return _MIXERS[name](dim, num_heads, **options)
