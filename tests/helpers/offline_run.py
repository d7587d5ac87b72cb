"""Read a W&B offline run back from its .wandb file, to test what it really holds.

The file is LevelDB's log format with W&B's own header: blocks of 32 KiB; in them records of
crc32 (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last part) and the payload, a
protobuf ``wandb_internal.Record``.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = 7


def read_offline_run(directory: Path) -> dict[str, Any]:
    """Return what one ``offline-run-…`` directory (or the only one below) holds.

    Keys: ``id, project, name, group, job_type, tags, host, remote, config``; ``history``, a list
    of dicts with ``_step``; ``summary``; ``metrics``, {name or glob: step metric}.
    """
    (file,) = directory.rglob("*.wandb")
    run: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "metrics": {}}
    for record in _finished_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            message = record.run
            run |= {
                "id": message.run_id,
                "project": message.project,
                "name": message.display_name,
                "group": message.run_group,
                "job_type": message.job_type,
                "tags": list(message.tags),
                "host": message.host,
                "remote": message.git.remote_url,
            }
            run["config"] |= _items(message.config.update)
        elif kind == "config":
            run["config"] |= _items(record.config.update)
        elif kind == "history":
            run["history"].append(_items(record.history.item))
        elif kind == "summary":
            run["summary"] |= _items(record.summary.update)
        elif kind == "metric":
            name = record.metric.name or record.metric.glob_name
            run["metrics"][name] = record.metric.step_metric
    run["config"].pop("_wandb", None)
    return run


def _finished_records(file: Path, patience: float = 30.0) -> list[Any]:
    """Return all records; ``run.finish()`` may return shortly before wandb's service has them."""
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + patience
    while True:
        records = [Record.FromString(payload) for payload in _payloads(file.read_bytes())]
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        assert time.monotonic() < deadline, f"{file} has no end"
        time.sleep(0.05)


def _items(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        *parents, last = item.nested_key or [item.key]
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = json.loads(item.value_json)
    return values


def _payloads(data: bytes) -> Iterator[bytes]:
    assert data[:4] in (b":W&B", b"")
    position, parts = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        if position + HEADER + length > len(data):
            return  # not yet written to the end
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):
            yield parts
            parts = b""
