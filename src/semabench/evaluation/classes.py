"""Which of a model's logits stand for the classes of a dataset: told by names, never by count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import torch
from torch import Tensor

from semabench.errors import SemabenchError

IMAGENET_CLASSES = 1000


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k in the order of everybody's logits."""
    from timm.data.imagenet_info import ImageNetInfo  # deferred: it reads a table of all synsets

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def columns_of(theirs: list[str], known: list[str] | None, count: int, model: str) -> list[int]:
    """Return the logit of each of a dataset's classes.

    Args:
        theirs: names of the dataset's classes, in the order of its labels; or all their numbers.
        known: names of the model's; None where weights do not tell, and order must be trusted.
        count: of the model's logits.
        model: its name, for messages.

    Raises:
        SemabenchError: classes that the model does not know, with their names.
    """
    if known is None:
        if len(theirs) != count:
            raise SemabenchError(
                f"{model} has {count} classes but the dataset has {len(theirs)}: evaluate on the "
                "dataset it was trained on."
            )
        return list(range(count))
    place = {name: column for column, name in enumerate(known)}
    unknown = [name for name in theirs if name not in place]
    if unknown and set(theirs) == {str(number) for number in range(count)}:  # ImageNet-V2's folders
        return [int(name) for name in theirs]
    if unknown:
        few = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise SemabenchError(
            f"{model} does not know {len(unknown)} of the dataset's {len(theirs)} classes: {few} "
            f"(its own are {', '.join(known[:2])}, ...)."
        )
    return [place[name] for name in theirs]


def own_logits(forward: Callable[[Tensor], Tensor], columns: Tensor) -> Callable[[Tensor], Tensor]:
    """Return ``forward`` with the logits of these classes alone, in the order of their labels."""
    return lambda images: forward(images).index_select(1, columns)


def among_all(
    batches: Iterable[tuple[Tensor, Tensor]], columns: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches whose labels are places among all logits; -1, padding, stays."""
    columns = columns.cpu()
    for images, labels in batches:
        yield images, torch.where(labels < 0, labels, columns[labels.clamp(min=0)])
