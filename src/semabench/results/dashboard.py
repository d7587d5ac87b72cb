"""A W&B report of a project's runs: accuracy, throughput and memory against resolution, and cost.

Its lines are grouped by `wandb_log.SERIES`, which begins with the mixer and holds all that training
was told but the seed: so a band is over seeds and over nothing else.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
from pathlib import Path
from typing import Any

from semabench.errors import SemabenchError
from semabench.files import atomic_write
from semabench.results.wandb_log import METRICS, SERIES, STEP_METRIC, wandb_mode

TITLE = "semabench: accuracy and cost against resolution"
NEEDS = "wandb-workspaces==0.4.13"

_INTRO = (
    "Every run is one training with its evaluations. Runs that differ by their seed alone are one "
    "line, named by mixer, model and training config: the mean over seeds, with the standard error "
    "of the mean as a band. A single seed has no band; its binomial error is `eval/top1_stderr`."
)
_PANELS: tuple[tuple[str, str, str, bool, str], ...] = (
    # title, x, y, whether y is logarithmic, how to read it
    (
        "Top-1 accuracy against resolution",
        *("resolution", "top1", False),
        "Higher is better; a mixer that holds up as images grow keeps its line from falling to "
        "the right of the training size.",
    ),
    (
        "Throughput against resolution",
        *("resolution", "images_per_second", True),
        "Higher is better. On these axes a power law is a straight line; runs on different devices "
        "do not compare.",
    ),
    (
        "Peak memory against resolution",
        *("resolution", "peak_memory_mib", True),
        "Lower is better, at equal batch sizes; on a CPU it is the whole process.",
    ),
    (
        "Top-1 accuracy against multiply-adds",
        *("gmacs", "top1", False),
        "Up and to the left is better; each line follows one model through its resolutions.",
    ),
)
_SCATTER = (
    "Top-1 accuracy against throughput, at the resolution evaluated last",
    "Up and to the right is better. One point a run: seeds are points of their own.",
)

log = logging.getLogger(__name__)


def dashboard(project: str, entity: str | None, out: Path) -> str:
    """Publish the report, or write its specification where there is no network or login.

    Args:
        project: of W&B's, in which the runs are.
        entity: user or team; None: the user's own default.
        out: the specification's file, if it cannot be published.

    Returns:
        What was done, and what is left to do, in one or two lines.

    Raises:
        SemabenchError: a name that W&B refuses, wandb-workspaces is missing, or ``out`` cannot be
            written.
    """
    for what, name in (("project", project), ("entity", entity)):
        if name is not None and not re.fullmatch(r"[^/\\#?%:\x00-\x1f]{1,128}", name):
            raise SemabenchError(
                f"W&B has no {what} '{name}': 1 to 128 characters, none of them of / \\ # ? % :"
            )
    try:
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError as error:
        raise SemabenchError(
            f"the dashboard needs wandb-workspaces: pip install {NEEDS} (or make setup again)."
        ) from error
    if wandb_mode("auto") == "online":
        try:
            return f"published: {_publish(project, entity)}"
        # Whatever the network, the server or its client say: the specification is kept in a file.
        except Exception as error:
            log.warning("W&B: %s: not published.", (str(error) or repr(error)).splitlines()[0])
    model = build(project, entity or "", online=False)._to_model()
    # As `Report.save` sends it, but that only a server knows the project's internal id.
    text = model.model_dump_json(by_alias=True, exclude_none=True)
    atomic_write(out, json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n")
    command = f"semabench dashboard {shlex.quote(project)}"
    if entity:
        command += f" --entity {shlex.quote(entity)}"
    return (
        f"not online: wrote the specification to {out}\n"
        f"to publish it, where there is network: wandb login && {command} "
        "(offline runs first: wandb sync outputs/*/*/wandb/offline-run-*)"
    )


def build(project: str, entity: str, online: bool) -> Any:
    """Return the report as wandb-workspaces has it, unsaved; offline no server is asked."""
    from wandb_workspaces.reports import v2

    panels: list[Any] = []
    for place, (title, x, y, log_y, _) in enumerate(_PANELS):
        panels.append(
            v2.LinePlot(
                title=title,
                x=v2.Metric(_metric(x)),
                y=[v2.Metric(_metric(y))],
                log_x=True,
                log_y=log_y,
                groupby=v2.Config(SERIES),
                groupby_aggfunc="mean",
                groupby_rangefunc="stderr",
                smoothing_type="none",
                max_runs_to_show=100,
                layout=v2.Layout(x=12 * (place % 2), y=9 * (place // 2), w=12, h=9),
            )
        )
    panels.append(
        v2.ScatterPlot(
            title=_SCATTER[0],
            x=v2.SummaryMetric(_metric("images_per_second")),
            y=v2.SummaryMetric(_metric("top1")),
            log_x=True,
            layout=v2.Layout(x=0, y=18, w=24, h=9),
        )
    )
    # With both names given, wandb-workspaces asks the server for the project at once.
    runs = v2.Runset(entity=entity if online else "", project=project, name="evaluated runs")
    read = [f"**{title}.** {how}" for title, *_, how in _PANELS]
    read.append(f"**{_SCATTER[0]}.** {_SCATTER[1]}")
    blocks: list[Any] = [
        v2.MarkdownBlock(_INTRO),
        v2.PanelGrid(runsets=[runs], panels=panels),
        v2.H2("How to read it"),
        v2.MarkdownBlock("\n\n".join(read)),
    ]
    return v2.Report(project=project, entity=entity, title=TITLE, blocks=blocks, width="fluid")


def _publish(project: str, entity: str | None) -> str:
    """Save the report, in place of an earlier one of its title; return its address."""
    import wandb

    api = wandb.Api()
    entity = entity or str(api.default_entity)
    made = build(project, entity, online=True)
    if project in {found.name for found in api.projects(entity)}:
        earlier = [r for r in api.reports(f"{entity}/{project}") if r.display_name == TITLE]
        if earlier:
            made.id = earlier[0].id
    made.save()
    return made.url


def _metric(name: str) -> str:
    metric = f"eval/{name}"
    assert metric == STEP_METRIC or name in METRICS
    return metric
