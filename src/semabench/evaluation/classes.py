"""Which of a model's logits stand for the classes of a dataset: told by names, never by count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import torch
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.progress import note

IMAGENET_CLASSES = 1000


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k in the order of everybody's logits."""
    from timm.data.imagenet_info import ImageNetInfo  # deferred: it reads a table of all synsets

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def wnids_of(names: list[str]) -> list[str]:
    """Return the WordNet ids of ImageNet classes that are named by words; else the names.

    A name is a class's lemmas, ``"tench, Tinca tinca"``, or one that no other class has. The two
    cranes are told apart where all thousand classes come in their order.
    """
    known = set(imagenet_wnids())
    if all(name in known or name.isdigit() for name in names):
        return names
    from timm.data.imagenet_info import ImageNetInfo  # deferred: it reads a table of all synsets

    info = ImageNetInfo("imagenet-1k")
    wnids = info.label_names()
    owners: dict[str, set[str]] = {}
    lemmas = {wnid: info.label_name_to_description(wnid) for wnid in wnids}
    for wnid, text in lemmas.items():
        for word in {text, *text.split(", ")}:
            owners.setdefault(word, set()).add(wnid)
    whole = {text: wnid for wnid, text in lemmas.items() if list(lemmas.values()).count(text) == 1}
    found: list[str] = []
    for place, name in enumerate(names):
        candidates = (
            {whole[name]} if name in whole else owners.get(name.rstrip("0123456789"), set())
        )
        if len(candidates) > 1 and len(names) == len(wnids):
            candidates = candidates & {wnids[place]}
        if len(candidates) != 1:
            return names
        found += candidates
    return found if len(set(found)) == len(found) else names


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
    if unknown:  # one of the two may name ImageNet's classes by words
        words = {name: column for column, name in enumerate(wnids_of(known))}
        ids = wnids_of(theirs)
        if all(name in words for name in ids):
            note(f"classes are matched by the words of ImageNet's: {theirs[0]} is {ids[0]}, ...")
            return [words[name] for name in ids]
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
