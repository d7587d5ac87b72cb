"""What the commands do, from Python: ``from semabench import train, evaluate, load, report``.

Words are those of the command line; errors are `SemabenchError`, in one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from torch import nn

from semabench.app import hydra_message
from semabench.commands import CONF, require_effect
from semabench.config.check import check_train
from semabench.config.schema import TrainConfig, known_keys, to_config
from semabench.errors import SemabenchError
from semabench.evaluation.schema import TargetConfig
from semabench.evaluation.target import from_run
from semabench.measures import measure_asked_for, measure_of, views
from semabench.results.record import Record
from semabench.results.report import print_report
from semabench.training import run as training


def train_config(*words: str) -> TrainConfig:
    """Return the typed config that ``semabench train WORDS`` runs.

    Raises:
        SemabenchError: a word that it would refuse, too.
    """
    config = to_config(_composed("train", words, TrainConfig), TrainConfig)
    check_train(config)
    require_effect(config, list(words))
    return config


def train(config: TrainConfig | str, *words: str) -> Path:
    """Train, or resume, or find finished; return the run's directory.

    Args:
        config: of `train_config`; or the first word, others following.
        words: more of them.

    Raises:
        SemabenchError: as the command tells.
    """
    if isinstance(config, str):
        config = train_config(config, *words)
    elif words:
        raise SemabenchError(f"{words[0]} has no effect beside a config: give train_config words.")
    check_train(config)
    return training.train(config)


def evaluate(*words: str) -> list[Record]:
    """Measure what ``semabench eval WORDS`` measures; return its rows.

    Raises:
        SemabenchError: as the command tells.
    """
    composed = _composed("eval", words, measure_asked_for(list(words)).schema)
    measure = measure_of(composed)
    config: Any = to_config(composed, measure.schema)
    measure.check(config)
    require_effect(config, list(words))
    return measure.run(config)


def report(*runs: Path | str, out: Path | str | None = None, html: bool = False) -> Path:
    """Write tables and plots of some runs, as ``semabench report`` does; return their folder.

    Args:
        runs: directories of runs, folders above them, or files of rows.
        out: the folder; ``report`` in the first run's if None.
        html: write ``report.html``, too.

    Raises:
        SemabenchError: there are no results, or they cannot be read.
    """
    if not runs:
        raise SemabenchError("no runs to report: give the directory of one.")
    paths = [Path(run) for run in runs]
    first = paths[0] if paths[0].is_dir() else paths[0].parent
    directory = Path(out) if out else first / "report"
    print_report(paths, directory, views(), html)
    return directory


def _composed(app: str, words: Sequence[str], schema: type) -> DictConfig:
    try:
        with initialize_config_dir(CONF, version_base="1.3"):
            return compose(app, overrides=list(words))
    except HydraException as error:
        raise SemabenchError(hydra_message(error, known_keys(schema))) from error


def load(run: str | Path, weights: str = "auto") -> nn.Module:
    """Return the model of a run with its trained weights, in eval mode on the CPU.

    Args:
        run: its directory, or a checkpoint.
        weights: ``model``, ``ema``, or ``auto``: the averaged ones where there are any.

    Raises:
        SemabenchError: no such run, or no such weights.
    """
    return from_run(TargetConfig(checkpoint=str(run), weights=weights)).model.eval()
