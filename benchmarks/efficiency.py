"""Measure the scaling efficiency of this machine's devices: benchmarks/ddp.py at 1 and N, in turn.

    PYTHONPATH=src python3 benchmarks/efficiency.py --processes N --out DIR -- [options of ddp.py]

First both are started once, untimed and side by side, so that the compiler's cache is warm. Then
one process without DDP and N under torchrun take turns, 1 N 1 N, with nothing beside them. One
process gets an N-th of the cores, as each of N does. Prints, for each model, execution and source
of pictures, img/s at N over N × img/s at 1, round by round; the rows are in DIR/1/ddp.jsonl and
DIR/N/ddp.jsonl. Pictures for --data: `benchmarks/loader.py --only-make`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

DDP = Path(__file__).with_name("ddp.py")
UNTIMED = ("--warmup", "2", "--steps", "2", "--windows", "1")


def start(processes: int, total: int, options: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start ddp.py on so many of ``total`` devices, on their share of the cores."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    cores = sorted(os.sched_getaffinity(0))
    share = cores[: max(1, len(cores) * processes // total)]
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, *(launcher if processes > 1 else []), str(DDP), *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, share),
        )


def wait(running: dict[Path, subprocess.Popen[bytes]]) -> None:
    """Wait for all, by log; if one fails stop the others, and exit saying where to look."""
    try:
        for log, process in running.items():
            if process.wait():
                sys.exit(f"error: ddp.py failed (exit code {process.returncode}): see {log}")
    finally:
        for process in running.values():
            process.terminate()


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that ddp.py has appended, oldest first."""
    return [json.loads(line) for line in (folder / "ddp.jsonl").read_text().splitlines()]


def table(ones: list[dict[str, Any]], many: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table: a row for each model, execution and source."""
    lines = [
        "| model | execution | data | ms at 1 | ms at N | to launch, at 1 and N | efficiency, each "
        "round | median |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    keys = dict.fromkeys((row["model"], row["execution"], row["data"]) for row in ones)
    for key in keys:
        one, more = (
            [row for row in rows if (row["model"], row["execution"], row["data"]) == key]
            for rows in (ones, many)
        )
        ratios = [
            100 * b["images_per_second"] / b["devices"] / a["images_per_second"]
            for a, b in zip(one, more, strict=True)
        ]
        times = [", ".join(f"{row['step_ms']:.1f}" for row in rows) for rows in (one, more)]
        launches = [statistics.median(row["launch_ms"] for row in rows) for rows in (one, more)]
        each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        cells = [
            *key,
            *times,
            "{:.0f}, {:.0f} ms".format(*launches),
            f"{each} %",
            f"{statistics.median(ratios):.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Parse the command line, run in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, required=True, help="N, a GPU each")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="empty or new folder")
    parser.add_argument("options", nargs="*", help="of ddp.py, behind --")
    options = parser.parse_args()
    count, out = options.processes, options.out
    if count < 2:
        parser.error("--processes: 2 or more")
    if out.exists() and any(out.iterdir()):
        parser.error(f"--out {out}: is not empty")
    out.mkdir(parents=True, exist_ok=True)
    logs = {n: out / f"{n}.log" for n in (1, count)}
    print("untimed, side by side", flush=True)
    untimed = [*options.options, *UNTIMED]
    wait({log: start(n, count, untimed, log) for n, log in logs.items()})
    for number in range(options.rounds):
        for n, log in logs.items():
            print(f"round {number + 1} of {options.rounds}: {n} at a time", flush=True)
            timed = [*options.options, "--out", str(out / str(n))]
            wait({log: start(n, count, timed, log)})
    print("\n".join(table(read(out / "1"), read(out / str(count)))))


if __name__ == "__main__":
    main()
