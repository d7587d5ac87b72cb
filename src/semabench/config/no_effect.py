"""Options that the command line asks for and that would do nothing: told, never ignored.

A YAML file states every option, needed or not: a recipe says when MESA starts, and leaves it off.
So values do not tell what a user wants, but the words of the command line do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from semabench.config.cost import CostCase, CostConfig
from semabench.config.dispersion import DispersionConfig
from semabench.config.schema import DataConfig, EvalConfig, LoggerConfig, ModelConfig, TrainConfig
from semabench.config.study import StudyCase, StudyConfig, study_cases
from semabench.errors import SemabenchError

AnyConfig = TrainConfig | EvalConfig | CostConfig | DispersionConfig | StudyConfig

_OFF = ("", "null", "0", "0.0")  # who asks for nothing gets it


class Idle(NamedTuple):
    """An option without effect.

    Attributes:
        key: its name, or a group's: then all in it.
        when: what takes its effect: "key has no effect <when>: leave it out, or <remedy>."
        remedy: what would give it one, if anything.
    """

    key: str
    when: str
    remedy: str = ""


def check_asked(config: AnyConfig, words: Iterable[str]) -> None:
    """Raise a SemabenchError that names the first option asked for that has no effect.

    Args:
        config: what was composed.
        words: of the command line: ``recipe.lr=0.1``, ``data=shapes``.
    """
    idle = list(idle_options(config))
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        for option in idle:
            if value not in _OFF and (key == option.key or key.startswith(f"{option.key}.")):
                remedy = f", or {option.remedy}" if option.remedy else ""
                raise SemabenchError(f"{key} has no effect {option.when}: leave it out{remedy}.")


def idle_options(config: AnyConfig) -> Iterator[Idle]:
    """Yield every option that has no effect beside the others' values."""
    if isinstance(config, TrainConfig):
        yield from _of_training(config)
    elif isinstance(config, CostConfig):
        yield from _of_cases(config.cases, CostCase)
    elif isinstance(config, StudyConfig):
        yield from _of_study(config)
    elif isinstance(config, DispersionConfig):
        yield from _of_dispersion(config)
    else:
        yield from _of_logger(config.logger)
        yield from _of_subject(config)


def _of_training(config: TrainConfig) -> Iterator[Idle]:
    recipe, trainer = config.recipe, config.trainer
    if not recipe.mixup and not recipe.cutmix:
        yield Idle("recipe.mix_prob", "without mixing", "set recipe.mixup or recipe.cutmix")
    if not recipe.mixup or not recipe.cutmix:
        needed = "recipe.mixup and recipe.cutmix"
        yield Idle("recipe.mix_switch_prob", "unless both kinds of mixing are on", f"set {needed}")
    if recipe.ema_decay is None:
        yield Idle("recipe.ema_batch_size", "without averaged weights", "set recipe.ema_decay")
    if not recipe.mesa:
        yield Idle("recipe.mesa_start", "without MESA", "set recipe.mesa")
    if not recipe.warmup_epochs:
        yield Idle("recipe.warmup_lr", "without a warm-up", "set recipe.warmup_epochs")
    if not recipe.weight_decay:
        needed = "set recipe.weight_decay"
        yield Idle("recipe.decay_state_matrix", "without weight decay", needed)
    if trainer.val_every_n_epochs > recipe.epochs:
        for key in ("data.val_resolution", "trainer.val_batch_size"):
            yield Idle(key, "as no epoch is validated", "lower trainer.val_every_n_epochs")
    keys = ("trainer.compile_min_steps", "model.compiles")
    if trainer.compile is not None:
        when = f"beside trainer.compile={str(trainer.compile).lower()}"
        yield from (Idle(key, when, "set trainer.compile=null") for key in keys)
    if recipe.rand_augment is None and not recipe.color_jitter:
        needed = "set recipe.rand_augment or recipe.color_jitter"
        yield Idle("data.augment_on", "without RandAugment and colour jitter", needed)
        if config.data.loader == "drawn":
            yield Idle("data.interpolation", "on pictures that are drawn")
    yield from _of_files(config.data)
    yield from _of_logger(config.logger)
    yield from _of_heads("model.options.num_heads", [config.model.mixer])


def _of_files(data: DataConfig) -> Iterator[Idle]:
    if data.loader == "folder":
        yield Idle("data.packed", "beside data.loader=folder", "set data.loader=ffcv")
    if data.loader == "drawn":
        for key in ("packed", "source"):
            yield Idle(f"data.{key}", "on pictures that are drawn")


def _of_logger(logger: LoggerConfig) -> Iterator[Idle]:
    if logger.name == "csv":
        for key in ("mode", "project"):
            yield Idle(f"logger.{key}", "on CSV files (it is W&B's)", "set logger=wandb")
    elif logger.mode == "disabled":
        yield Idle("logger.project", "beside logger.mode=disabled", "set logger.mode=auto")


def _of_heads(key: str, mixers: Sequence[str | None]) -> Iterator[Idle]:
    from semabench.mixers import headless_mixers

    if mixers and all(mixer in headless_mixers() for mixer in mixers):
        names = ", ".join(map(str, mixers))
        yield Idle(key, f"on a mixer without heads ({names})")


_TRAINING_DATA = ("augment_on", "crop_ratio", "crop_scale", "hflip", "holdout", "val_resolution")


def _of_subject(config: EvalConfig | DispersionConfig) -> Iterator[Idle]:
    """Yield what an evaluation of one model does not ask of it and its data."""
    if config.checkpoint is None:
        yield Idle("weights", "without checkpoint=RUN, which may have several")
    else:
        when = "beside checkpoint=..., which knows that of its training"
        yield Idle("data.resolution", when, "give resolutions=[...]")
    for key in _TRAINING_DATA:
        yield Idle(f"data.{key}", "in an evaluation (it is of training)")
    for key in ("drop_path_rate", "compiles"):
        yield Idle(f"model.{key}", "in an evaluation (it is of training)")
    if config.data is not None:
        yield from _of_files(config.data)
        if config.data.loader == "drawn":
            yield Idle("data.interpolation", "on pictures that are drawn")
    if isinstance(config.model, ModelConfig):
        yield from _of_heads("model.options.num_heads", [config.model.mixer])


_OF_MODEL = ("weights", "data", "pictures", "batch_size", "channels_last")
_OF_RANDOM = ("kernels", "tokens", "dim", "bound", "values", "seeds")


def _of_dispersion(config: DispersionConfig) -> Iterator[Idle]:
    if config.random:
        for key in _OF_MODEL:
            yield Idle(key, "on random inputs", "give checkpoint=RUN")
        if "window" not in config.kernels:
            yield Idle("window_size", "without windows", "add window to kernels")
        return
    named = "model" if config.checkpoint is None else "checkpoint"
    for key in _OF_RANDOM:
        yield Idle(key, f"beside {named}=... (it is of random inputs)", f"the {named}")
    yield from _of_subject(config)


def _of_cases(cases: Sequence[Any], kind: type[CostCase] | type[StudyCase]) -> Iterator[Idle]:
    for key in (field.name for field in fields(kind)):
        if cases and all(getattr(case, key) is not None for case in cases):
            when = "beside cases, each of which has its own"
            yield Idle(key, when, "give cases=[...] without it")


def _of_study(config: StudyConfig) -> Iterator[Idle]:
    yield from _of_cases(config.cases, StudyCase)
    cases = study_cases(config)
    tasks = {task for case in cases for task in case.tasks or ()}
    if "recall" not in tasks:
        yield Idle("pairs", "without recall", "add it to tasks")
    for task in config.steps:
        if task not in tasks:
            yield Idle(f"steps.{task}", f"without {task}", "add it to tasks")
    mixers = [mixer for case in cases for mixer in case.mixers or ()]
    yield from _of_heads("num_heads", list(dict.fromkeys(mixers)))
