"""One model of every family that timm has, through train.py for a step and through eval.py.

    python benchmarks/families.py --out DIR [--sizes 50 64 128 224] [--jobs 2]

The smallest model of each of timm's modules is trained for one step of two images at every size, on
a CPU, and what has been trained is evaluated at all sizes. A pair passes if it runs, or if it is
refused in one line (exit code 2); all else is a fault of ours. One row a pair goes to
DIR/families.jsonl; those that are there are not tried again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import runpy
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

import semabench.models  # noqa: F401  our own names, too
from semabench.progress import item_bar

REPOSITORY = Path(__file__).resolve().parents[1]


def smallest(module: str) -> tuple[str, str | None]:
    """Return a module's name and that of its model with the fewest parameters, if any builds."""
    best: tuple[int, str] | None = None
    for name in timm.list_models(module=module):
        with contextlib.suppress(Exception), torch.device("meta"):
            count = sum(p.numel() for p in timm.create_model(name).parameters())
            best = min(filter(None, (best, (count, name))))
    return module, None if best is None else best[1]


def make_images(folder: Path) -> None:
    """Write a dataset of two classes, an image each."""
    generator = np.random.default_rng(0)
    for split, name in product(("train", "val"), ("a", "b")):
        (folder / split / name).mkdir(parents=True)
        pixels = generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / split / name / "0.png")


def run(app: str, words: list[str], seconds: int) -> tuple[int, str]:
    """Run an app in a child of this process, which has imported all; return its code and output."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.environ["SEMABENCH_DEBUG"] = "1"
            code = 1
            try:
                sys.argv = [str(REPOSITORY / app), *words]
                runpy.run_path(sys.argv[0], run_name="__main__")
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.05)
        else:
            os.kill(child, 9)
            _, status = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read()


def told(code: int, output: str) -> str:
    """Say what came of a run: ``ok``, a refusal's line, or the fault's last line."""
    lines = [line for line in output.splitlines() if line.strip()]
    if code == 0:
        return "ok"
    errors = [line for line in lines if line.startswith("error: ")]
    if code == 2 and len(errors) == 1 and "Traceback" not in output:
        return errors[0]
    return f"FAULT {code}: {lines[-1][:300] if lines else ''}"


def try_pair(module: str, name: str, size: int, sizes: list[int], images: Path) -> dict[str, Any]:
    """Train a step at one size, evaluate at all; return the row."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        common = ["logger=csv", "data=clothing10", "data.loader=folder", f"data.source={images}"]
        common += ["data.num_workers=1"]
        words = ["model=timm", f"model.name={name}", "recipe=demo", "recipe.epochs=1", *common]
        words += ["recipe.batch_size=2", "recipe.warmup_epochs=0", "evaluate_at=[]", "name=run"]
        words += [f"data.resolution={size}", f"output_root={folder}", "trainer.compile=false"]
        code, output = run("train.py", words, 300)
        row = {"module": module, "model": name, "size": size, "train": told(code, output)}
        if code == 0:
            words = [f"checkpoint={folder}/default/run", f"resolutions={sizes}".replace(" ", "")]
            words += [*common, "batch_size=2"]
            row["eval"] = told(*run("eval.py", words, 300))
        return row


def main() -> None:
    """Parse the command line, try what is missing, print the count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/families"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 64, 128, 224])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--modules", nargs="*", help="instead of all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    images, path = (options.out / "images").resolve(), options.out / "families.jsonl"
    if not images.exists():
        make_images(images)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    before = {(row["module"], row["size"]) for row in rows}
    modules = options.modules or timm.list_modules()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("fork")) as pool:
        chosen = {row["module"]: row["model"] for row in rows}
        wanted = [module for module in modules if module not in chosen]
        with item_bar() as bar:
            found = bar.track(pool.map(smallest, wanted), len(wanted), description="choosing")
            chosen |= {module: name for module, name in found if name}
        pairs = [
            (m, chosen[m], s, options.sizes, images)
            for m, s in product(modules, options.sizes)
            if m in chosen and (m, s) not in before
        ]
        with item_bar() as bar, open(path, "a") as file:
            done = pool.map(try_pair, *zip(*pairs, strict=True)) if pairs else iter(())
            for row in bar.track(done, len(pairs), description="trying"):
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
    faults = [r for r in rows if any("FAULT" in r.get(app, "") for app in ("train", "eval"))]
    for row in faults:
        print(json.dumps(row))
    ran = {r["module"] for r in rows if r["train"] == "ok"}
    print(
        f"{len({r['module'] for r in rows})} families, {len(ran)} train at some size; "
        f"{len(rows)} pairs, {sum(r['train'] == 'ok' for r in rows)} run, "
        f"{len(rows) - len(faults)} run or are refused in a line, {len(faults)} faults"
    )


if __name__ == "__main__":
    main()
