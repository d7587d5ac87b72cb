"""A million samples through a loader of training images: does memory grow?

    python benchmarks/endurance.py [--loader ffcv] [--samples 1000000] [--out DIR]

A thousand procedural images of 96 px are packed, and read over and over as random crops of 64 px,
an epoch after the other. What this process and its workers hold is read at a tenth, the half and
the end of the way: anonymous pages, those shared by several counted once. From the tenth on the
process may take no more than 64 MiB of new memory (RLIMIT_DATA): a leak of 75 bytes a sample would
end it. One row goes to DIR/endurance.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from semabench.cli import main as semabench
from semabench.config.schema import DataConfig
from semabench.data.loader import create_train_loader
from semabench.progress import item_bar
from semabench.results.record import git_commit

MORE = 64 << 20  # bytes
BATCH = 100


def held(pid: int, key: str) -> int:
    """Return bytes of a process, ``VmData`` or ``Pss_Anon``, by Linux."""
    name = "smaps_rollup" if key == "Pss_Anon" else "status"
    for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def family() -> list[int]:
    """Return this process and its children."""
    mine = os.getpid()
    children = Path(f"/proc/{mine}/task/{mine}/children").read_text().split()
    return [mine, *map(int, children)]


def main() -> None:
    """Parse the command line, read, print and append the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loader", choices=("ffcv", "folder"), default="ffcv")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="folder for endurance.jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/images"
        semabench(["data", "shapes", source, "--train", "1000", "--val", "9", "--size", "96"])
        semabench(["data", "pack", source, folder])
        told = {"loader": options.loader, "resolution": 64}
        where = {"source": source} if options.loader == "folder" else {}
        loader = create_train_loader(
            DataConfig("shapes", folder, **where, **told),
            batch_size=BATCH, seed=0, rank=0, world_size=1, num_workers=2,
        )  # fmt: skip
        row = read(loader, options.samples)
    row |= {"loader": options.loader, "cores": os.cpu_count(), "commit": git_commit()}
    print(json.dumps(row))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        with open(options.out / "endurance.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")


def read(loader: Any, samples: int) -> dict[str, Any]:
    """Read so many samples, from a tenth on under the limit."""
    seen, epoch = 0, 0
    memory: dict[str, float] = {}  # MiB, in the middle of an epoch, workers included
    began = time.perf_counter()
    with item_bar() as bar:
        task = bar.add_task("reading", total=samples)
        while seen < samples:
            loader.set_epoch(epoch)
            for number, (images, *_) in enumerate(loader):
                seen += len(images)
                bar.advance(task, len(images))
                if number != len(loader) // 2:
                    continue
                for part in (0.1, 0.5, 1.0):
                    if (
                        f"mib_at_{part}" not in memory
                        and seen + len(loader) * BATCH > part * samples
                    ):
                        memory[f"mib_at_{part}"] = (
                            sum(held(pid, "Pss_Anon") for pid in family()) / 2**20
                        )
                if "mib_at_0.1" in memory and epoch * len(loader) * BATCH <= samples // 10:
                    limit = held(os.getpid(), "VmData") + MORE
                    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
            epoch += 1
    return {
        "samples": seen,
        "epochs": epoch,
        "seconds": time.perf_counter() - began,
        **memory,
    }


if __name__ == "__main__":
    main()
