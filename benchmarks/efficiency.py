"""Measure the scaling efficiency of this machine's GPUs: benchmarks/ddp.py at 1 and N, in turn.

    PYTHONPATH=src python3 benchmarks/efficiency.py --processes N --out DIR -- [options of ddp.py]

First both are started once, untimed and side by side, so that the compiler's cache is warm (the
first GPU then holds two trainings; --apart: one after the other; --warm: not at all). Then one
process without DDP and N under torchrun take turns, 1 N 1 N, with nothing beside them. The one is
held to an N-th of the cores; the N share all. Prints, for each model, execution and source of
pictures, img/s at N over N × img/s at 1, round by round; the rows are in DIR/1/ddp.jsonl and
DIR/N/ddp.jsonl, what the processes say in DIR/1.log and DIR/N.log. Pictures for --data:
`benchmarks/loader.py --only-make`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DDP = Path(__file__).with_name("ddp.py")
UNTIMED = ("--warmup", "2", "--steps", "2", "--windows", "1")
SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def share_of_cores(parts: int) -> set[int]:
    """Return one of ``parts`` equal shares of this process's cores, hyper-threads together."""
    siblings: dict[str, list[int]] = {}
    for core in sorted(os.sched_getaffinity(0)):
        name = str(core)
        with contextlib.suppress(OSError):  # no such file: each core by itself
            name = Path(SIBLINGS.format(core)).read_text().strip()
        siblings.setdefault(name, []).append(core)
    some = list(siblings.values())[: max(1, len(siblings) // parts)]
    return {core for cores in some for core in cores}


def start(processes: int, total: int, options: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start ddp.py on so many of ``total`` devices, on their share of the cores."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    cores = share_of_cores(1 if processes == total else total)
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, *(launcher if processes > 1 else []), str(DDP), *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", **os.environ},  # torchrun's default, for both
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )


def wait(running: dict[Path, subprocess.Popen[bytes]]) -> None:
    """Wait for all, by log. If one fails, or at a signal, stop the others; say where to look."""
    try:
        codes: list[int | None] = [None]
        while None in codes and not any(codes):
            time.sleep(0.1)
            codes = [process.poll() for process in running.values()]
        for log, process in running.items():
            if process.poll():
                sys.exit(f"error: ddp.py failed (exit code {process.returncode}): see {log}")
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(timeout=60)  # torchrun ends its workers first
            except subprocess.TimeoutExpired:
                process.kill()


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
        launches = [[row["launch_ms"] for row in rows if row["launch_ms"]] for rows in (one, more)]
        cells = [
            *key,
            *times,
            ", ".join(f"{statistics.median(ms):.0f} ms" for ms in launches if ms),
            ", ".join(f"{ratio:.1f}" for ratio in ratios) + " %",
            f"{statistics.median(ratios):.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, required=True, help="N, a GPU each")
    parser.add_argument("--rounds", type=int, default=2)
    untimed = parser.add_mutually_exclusive_group()
    untimed.add_argument("--apart", action="store_true", help="untimed starts one after the other")
    untimed.add_argument("--warm", action="store_true", help="the cache is: no untimed starts")
    parser.add_argument("--out", type=Path, required=True, help="empty or new folder")
    parser.add_argument("options", nargs="*", help="of ddp.py, behind --")
    options = parser.parse_args(arguments)
    for name, least in (("processes", 2), ("rounds", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: {least} or more")
    if options.out.exists() and not (options.out.is_dir() and not any(options.out.iterdir())):
        parser.error(f"--out {options.out}: is there, and not an empty folder")
    if any(option.partition("=")[0] == "--out" for option in options.options):
        parser.error("--out behind --: rows go below this program's own --out")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run in turn, print the table."""
    options = options_of(arguments)
    count, out = options.processes, options.out
    out.mkdir(parents=True, exist_ok=True)
    logs = {n: out / f"{n}.log" for n in (1, count)}
    told = [*options.options, *UNTIMED]
    untimed = [] if options.warm else [[1], [count]] if options.apart else [[1, count]]
    for numbers in untimed:
        print("untimed: " + " and ".join(f"{n} at a time" for n in numbers), flush=True)
        wait({logs[n]: start(n, count, told, logs[n]) for n in numbers})
    for number in range(options.rounds):
        for n, log in logs.items():
            print(f"round {number + 1} of {options.rounds}: {n} at a time", flush=True)
            timed = [*options.options, "--out", str(out / str(n))]
            wait({log: start(n, count, timed, log)})
    print("\n".join(table(read(out / "1"), read(out / str(count)))))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
