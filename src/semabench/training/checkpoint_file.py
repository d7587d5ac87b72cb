"""A checkpoint's file, read: with its sums checked, and an error that says what is wrong."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from semabench.errors import SemabenchError, first_line

OFFICIAL = "official weights are loaded with model=NAME model.checkpoint=PATH"


def read_checkpoint(path: Path, digest: hashlib._Hash | None = None) -> dict[str, Any]:
    """Load a checkpoint file on the CPU.

    Args:
        path: of the file. A training may put another in its place at any moment.
        digest: is updated with the bytes of the file that is loaded.

    Raises:
        SemabenchError: no such file, or damaged.
    """
    try:
        with open(path, "rb") as file:
            _check_sums(file)
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
            if digest is not None:
                file.seek(0)
                hashlib.file_digest(file, lambda: digest)
            return checkpoint
    except FileNotFoundError as error:
        raise SemabenchError(f"there is no checkpoint {path}.") from error
    except Exception as error:  # damage shows as nearly any of them
        reason = first_line(error).split(". ")[0][:100]
        if isinstance(error, pickle.UnpicklingError):
            reason = f"or no checkpoint of train.py's; {OFFICIAL}"
        raise SemabenchError(f"checkpoint {path} is damaged ({reason}).") from error


def _check_sums(file: BinaryIO) -> None:
    """Compare the file's own sums with its bytes, which torch.load does not."""
    if zipfile.is_zipfile(file) and (damaged := zipfile.ZipFile(file).testzip()) is not None:
        raise ValueError(f"the sum of {damaged} differs")
    file.seek(0)
