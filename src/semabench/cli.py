"""The command line: ``semabench data pack|render|check|shapes``, ``report``, ``models``, …"""

from __future__ import annotations

import argparse
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from semabench import __version__
from semabench.app import fail, one_line_errors
from semabench.config.schema import MIN_RESOLUTION
from semabench.errors import SemabenchError, nearest


class _Parser(argparse.ArgumentParser):
    """Argparse with errors of one line, and the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with status 2."""
        if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            choices = [choice.strip(" '") for choice in match[2].split(",")]
            message = f"there is no '{match[1]}'.{nearest(match[1], choices)}"
        fail(f"{message} ({self.prog} --help)")

    def reject(self, extra: str) -> NoReturn:
        """Say that an option is unknown, and which was probably meant."""
        name = extra.split("=")[0]
        self.error(f"unknown argument {name}.{nearest(name, self._option_string_actions)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exit code 0, 2 for a mistake told in one line, 130 for ctrl-C."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in _APPS:
        return _run_hydra(*words)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parsed, extra = _parser().parse_known_args(argv)
    arguments = vars(parsed)
    parser, command = arguments.pop("parser"), arguments.pop("command")
    if extra:
        parser.reject(extra[0])
    with one_line_errors():
        try:
            command(**arguments)
            sys.stdout.flush()
        except BrokenPipeError:  # semabench ... | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_APPS = {
    "train": "train a model, or many (-m): semabench train experiment=demo model=sema_nano",
    "eval": "measure accuracy, cost, dispersion, study: semabench eval checkpoint=RUN",
}


def _run_hydra(app: str, *words: str) -> None:
    """Hand over to the Hydra app, as train.py and eval.py do."""
    from semabench import commands

    sys.argv[1:] = words
    (commands.train if app == "train" else commands.evaluate)()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="semabench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"semabench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for app, text in _APPS.items():
        commands.add_parser(app, help=text)
    _add(commands, "demo", _demo, "train three models on the embedded dataset, evaluate, report")
    data = commands.add_parser("data", help="pack, render, check pictures; make the demo's")
    data_commands = data.add_subparsers(required=True, metavar="COMMAND")
    _add_pack(data_commands)
    _add_render(data_commands)
    _add_check(data_commands)
    _add_shapes(data_commands)
    _add_show(commands)
    _add_report(commands)
    _add_tables(commands)
    _add_dashboard(commands)
    _add_push(commands)
    _add_export(commands)
    _add_models(commands)
    _add_config(commands)
    return parser


def _add(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=function, parser=parser)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", type=Path, help="folder of train/ and val/, or of the ILSVRC tars")
    parser.add_argument("out_dir", type=Path, metavar="out", help="directory to write into")


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--holdout",
        type=float,
        help="make train and val of the training pictures alone: this share of them is val",
    )
    parser.add_argument("--workers", type=int, help="processes (default: the cores there are)")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="at an unreadable picture: stop, or leave it out and list it in the sidecar",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file packed otherwise")


def _add_pack(commands: Any) -> None:
    p = _add(commands, "pack", _pack, "Pack a split into <out>/<split>.beton for FFCV.")
    _add_source(p)
    p.add_argument("--split", default="train")
    p.add_argument(
        "--max-resolution",
        type=int,
        default=500,
        help="shrink pictures whose longest side is greater, in pixels; 0: never (default: 500)",
    )
    p.add_argument("--mode", choices=("jpg", "raw", "proportion"), default="jpg")
    p.add_argument("--quality", type=int, help="of JPEG, 1 to 100 (default: 90)")
    p.add_argument("--proportion", type=float, help="of JPEGs in --mode proportion (default: 0.5)")
    p.add_argument("--seed", type=int, help="of --mode proportion's choice (default: 0)")
    _add_work(p)


def _add_render(commands: Any) -> None:
    text = "Render a split as timm's evaluation sees it: <out>/<split>-<resolution>.beton."
    p = _add(commands, "render", _render, text)
    _add_source(p)
    p.add_argument("--split", default="val")
    p.add_argument("--resolution", type=int, nargs="+", required=True, dest="resolutions")
    p.add_argument("--crop-pct", type=float, default=0.875)
    p.add_argument("--interpolation", default="bicubic")
    _add_work(p)


def _add_check(commands: Any) -> None:
    p = _add(commands, "check", _check, "Verify checksums and decode every picture.")
    p.add_argument("files", type=Path, nargs="+", metavar="file")
    p.add_argument("--source", type=Path, help="what it was packed from, to name damaged pictures")
    p.add_argument("--workers", type=int)


def _add_shapes(commands: Any) -> None:
    p = _add(commands, "shapes", _shapes, "Draw the embedded dataset (see docs/data.md).")
    p.add_argument("out_dir", type=Path, metavar="out")
    p.add_argument("--train", type=int, default=5400, help="pictures (default: 5400)")
    p.add_argument("--val", type=int, default=720, help="pictures (default: 720)")
    p.add_argument("--size", type=int, default=96, help="of a picture, in pixels (default: 96)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, help="processes (default: the cores there are)")


def _add_show(commands: Any) -> None:
    text = "Draw what a run loses and confuses as images grow, and what its tokens follow."
    p = _add(commands, "show", _show, text)
    p.add_argument("run", type=Path, help="directory of a run, or a checkpoint")
    p.add_argument("--resolutions", type=int, nargs="+", required=True, help="in pixels, rendered")
    p.add_argument("--image", type=Path, help="whose tokens are shown (default: one that is right)")
    p.add_argument("--out", type=Path, help="folder (default: <run>/pictures)")


def _add_report(commands: Any) -> None:
    text = "Tables and plots of accuracy, cost, dispersion and studies, for any set of runs."
    p = _add(commands, "report", _report, text)
    p.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="run directories, folders above them, or .csv files of rows",
    )
    p.add_argument("--out", type=Path, help="where to write (default: <first run>/report)")
    p.add_argument("--html", action="store_true", help="write report.html, too: one page with all")


def _add_tables(commands: Any) -> None:
    text = "Print tables of rows in Markdown, or write them into a document, between its comments."
    p = _add(commands, "tables", _tables, text)
    p.add_argument(
        "rows",
        type=Path,
        nargs="+",
        help="as for report; or .md files with <!-- tables FILE: TITLE; TITLE --> … "
        "<!-- end of tables -->, which are brought up to date",
    )
    p.add_argument("--only", nargs="+", default=[], help="beginnings of titles (default: all)")


def _add_dashboard(commands: Any) -> None:
    text = "Publish a W&B report of a project; write its specification where that cannot be."
    p = _add(commands, "dashboard", _dashboard, text)
    p.add_argument("project", help="of W&B's (logger.project)")
    p.add_argument("--entity", help="user or team (default: your own)")
    name = "dashboard.json"
    p.add_argument("--out", type=Path, default=Path(name), help=f"specification (default: {name})")


def _add_push(commands: Any) -> None:
    text = "Upload a run's model to the Hugging Face Hub, as timm loads it, with its results."
    p = _add(commands, "push", _push, text)
    p.add_argument("run", type=Path, help="directory of a run, or a checkpoint")
    p.add_argument("repository", metavar="OWNER/NAME")
    p.add_argument("--to", type=Path, help="write this folder, and upload nothing")
    help = "auto: the averaged ones where there are any"
    p.add_argument("--weights", choices=("auto", "model", "ema"), default="auto", help=help)
    p.add_argument("--private", action="store_true", help="create the repository so")


def _add_export(commands: Any) -> None:
    text = "Write a run's model as a file that runs without semabench; compare its logits."
    p = _add(commands, "export", _export, text)
    p.add_argument("run", type=Path, help="directory of a run, or a checkpoint")
    p.add_argument("--to", choices=("torch-export", "onnx", "aoti"), default="onnx")
    p.add_argument("--resolution", type=int, help="of its images (default: that of training)")
    p.add_argument("--dynamic", action="store_true", help="take any batch, and any size if it can")
    p.add_argument("--out", type=Path, help="the file (default: <run>/export/<model>-<pixels>…)")
    help = "auto: the averaged ones where there are any"
    p.add_argument("--weights", choices=("auto", "model", "ema"), default="auto", help=help)


def _add_models(commands: Any) -> None:
    text = "List models with their parameters and multiply-adds."
    p = _add(commands, "models", _models, text)
    p.add_argument("names", nargs="*", help="timm names (default: semabench's own)")
    p.add_argument("--resolution", type=int, default=224)
    p.add_argument("--num-classes", type=int, default=1000)


def _add_config(commands: Any) -> None:
    text = "Print every config key: its default, range, meaning, and what it needs."
    p = _add(commands, "config", _config, text)
    help = "train, a measure, or a group or key: cost, recipe, recipe.lr (default: all)"
    p.add_argument("part", nargs="?", default="all", help=help)


def _pack(max_resolution: int, **options: Any) -> None:
    from semabench.data.ffcv.pack import pack

    pack(max_resolution=max_resolution or None, **options)


def _render(**options: Any) -> None:
    from semabench.data.ffcv.pack import render

    render(**options)


def _check(files: list[Path], **options: Any) -> None:
    from semabench.data.ffcv.check import check

    for file in files:
        check(file, **options)


def _shapes(**options: Any) -> None:
    from semabench.data.procedural.shapes_folder import generate_shapes

    generate_shapes(**options)


def _show(**options: Any) -> None:
    from semabench.evaluation.pictures import show

    for file in show(**options):
        print(file)


def _report(runs: list[Path], out: Path | None, html: bool) -> None:
    from semabench.measures import views
    from semabench.results.report import print_report

    first = runs[0] if runs[0].is_dir() else runs[0].parent
    print_report(runs, out or first / "report", views(), html)


def _tables(rows: list[Path], only: list[str]) -> None:
    from semabench.measures import views
    from semabench.results.report import markdown_tables, update_tables

    documents = [path for path in rows if path.suffix == ".md"]
    for document in documents:
        update_tables(document, views())
    if len(documents) < len(rows):
        print(markdown_tables([p for p in rows if p not in documents], views(), only), end="")


def _config(part: str) -> None:
    from semabench.config.key import reference
    from semabench.config.schema import TrainConfig
    from semabench.measures import measures

    schemas = {"train": TrainConfig, **{n: m.schema for n, m in measures().items()}}
    print(reference(part, schemas), end="")


def _dashboard(**options: Any) -> None:
    from semabench.results.dashboard import dashboard

    print(dashboard(**options))


def _push(**options: Any) -> None:
    from semabench.hub import push

    print(push(**options))


def _export(**options: Any) -> None:
    from semabench.export import export

    made = export(**options)
    print(f"{made.file}: takes {made.takes}; logits differ by {made.difference:.1e} of the largest")


def _models(names: list[str], resolution: int, num_classes: int) -> None:
    """Print one row a model: parameters in millions, and GMACs for one image of this resolution.

    Published top-1 accuracies (ImageNet-1k, 224 px) stand beside them with the recipe that gave
    them, where it is one of ``conf/recipe``.
    """
    if resolution < MIN_RESOLUTION:
        raise SemabenchError(
            f"--resolution {resolution} is too small: the smallest is {MIN_RESOLUTION} pixels."
        )
    if num_classes < 1:
        raise SemabenchError(f"--num-classes must be at least 1, not {num_classes}.")
    import torch
    from rich.console import Console
    from rich.progress import track

    from semabench.models import build_model, mixer_name, model_names
    from semabench.models.build import PUBLISHED
    from semabench.models.flops import count_gmacs, count_parameters
    from semabench.results.text_table import TextTable, print_table

    rows = []
    for name in track(list(names) or model_names(), description="counting", transient=True):
        with torch.device("meta"):
            model = build_model(name, num_classes=num_classes, resolution=resolution, options={})
        told = PUBLISHED.get(name.split(".")[0])
        rows.append(
            [
                name,
                mixer_name(model) or "-",
                f"{count_parameters(model) / 1e6:.2f}",
                f"{count_gmacs(model, resolution):.3f}",
                f"{told.top1:.1f}" if told else "",
                (told.recipe or "its own") if told else "",
            ]
        )
    header = ["model", "mixer", "params (M)", "GMACs", "published top-1", "by recipe"]
    title = f"{resolution} px, {num_classes} classes"
    print_table(TextTable(title, header, rows, words=2), Console())


def _demo() -> None:
    """Make the embedded dataset, train three models on it, evaluate each, and report."""
    from semabench.data.ffcv.pack import pack, render
    from semabench.data.procedural.shapes_folder import generate_shapes
    from semabench.measures import views
    from semabench.results.report import print_report

    shapes = Path("data/shapes")
    generate_shapes(shapes)
    pack(shapes, shapes, mode="raw")
    render(shapes, shapes, [32, 48, 64, 96], crop_pct=1.0)
    sweep = ["experiment=demo", "model=sema_nano,mila_nano,vmamba_nano"]
    subprocess.run([sys.executable, "-m", "semabench", "train", "-m", *sweep], check=True)
    print_report([Path("outputs/demo")], Path("outputs/demo/report"), views())
