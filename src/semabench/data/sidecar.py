"""What stands beside a .beton: the sidecar that vouches for it, and the stamp of a verification."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semabench.errors import SemabenchError
from semabench.files import atomic_write

FORMAT = 1


@dataclass(frozen=True)
class Sidecar:
    """The description of one .beton, stored as ``<file>.json``.

    Attributes:
        kind: ``pack`` (pictures of their own sizes) or ``render`` (one size, ready to evaluate).
        split: the split's name.
        samples: samples in the file.
        bytes: size of the file.
        sha256: checksum of the file, hex.
        fingerprint: identity of the source, see ``PictureList.fingerprint``.
        classes: directory names or WordNet ids; a label is an index into this list.
        names: human-readable class names.
        counts: samples of each class in the file.
        settings: all that decides the file's content besides the source.
        skipped: [path, reason] of each picture left out because it could not be read.
        versions: the libraries that wrote it.
    """

    kind: str
    split: str
    samples: int
    bytes: int
    sha256: str
    fingerprint: str
    classes: list[str]
    names: list[str]
    counts: list[int]
    settings: dict[str, Any]
    skipped: list[list[str]]
    versions: dict[str, str]

    def to_json(self) -> str:
        """Return the text of the sidecar file."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def sidecar_path(beton: Path) -> Path:
    """Return where the sidecar of ``beton`` lies."""
    return beton.with_name(beton.name + ".json")


def read_sidecar(beton: Path) -> Sidecar:
    """Read and validate the sidecar of ``beton``.

    Raises:
        SemabenchError: there is none (the file was never finished, or not by us), or it is not
            one that this version can read.
    """
    path = sidecar_path(beton)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SemabenchError(
            f"{beton} has no sidecar {path.name}: it was not finished, or not packed by "
            "semabench; pack it again."
        ) from error
    except (OSError, ValueError) as error:
        raise SemabenchError(f"cannot read {path}: {error}; pack again.") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise SemabenchError(f"{path} is no sidecar of format {FORMAT}; pack again.")
    types = {
        "kind": str, "split": str, "samples": int, "bytes": int, "sha256": str,
        "fingerprint": str, "classes": list, "names": list, "counts": list,
        "settings": dict, "skipped": list, "versions": dict,
    }  # fmt: skip
    for key, kind in types.items():
        if not isinstance(content.get(key), kind):
            raise SemabenchError(f"{path} lacks a valid '{key}': it is damaged; pack again.")
    sidecar = Sidecar(**{key: content[key] for key in types})
    if not len(sidecar.classes) == len(sidecar.names) == len(sidecar.counts):
        raise SemabenchError(f"{path}: classes, names and counts differ in length; pack again.")
    return sidecar


def stamp_path(beton: Path) -> Path:
    """Return where the stamp of the last verification of ``beton`` lies."""
    return beton.with_name(f".{beton.name}.verified")


def is_stamped(beton: Path, sha256: str) -> bool:
    """Say whether this very file (size, time, inode) was verified to have this checksum."""
    with contextlib.suppress(OSError, ValueError):
        stamp: object = json.loads(stamp_path(beton).read_bytes())
        return stamp == _stamp(beton, sha256)
    return False


def write_stamp(beton: Path, sha256: str) -> None:
    """Remember that ``beton`` has this checksum; in a read-only directory nothing is kept."""
    with contextlib.suppress(OSError, SemabenchError):
        atomic_write(stamp_path(beton), json.dumps(_stamp(beton, sha256)))


def _stamp(beton: Path, sha256: str) -> dict[str, int | str]:
    status = beton.stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
        "sha256": sha256,
    }
