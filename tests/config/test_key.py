"""Options of the command line that would have no effect are told; those of YAML files may rest."""

from __future__ import annotations

import re

import pytest

from helpers import configs
from semabench import cli
from semabench.commands import require_effect
from semabench.config.key import declared
from semabench.config.schema import TrainConfig, to_config
from semabench.errors import SemabenchError
from semabench.measures import measure_of, measures

RUN = "measure=dispersion checkpoint=RUN"
EACH = "measure=cost cases=[{resolutions:[32]},{resolutions:[64],batch_sizes:[2]}]"


def composed(app: str, words: list[str]):
    config = configs.composed(app, words)
    return to_config(config, TrainConfig if app == "train" else measure_of(config).schema)


def ask(line: str) -> None:
    app, *words = line.split()
    require_effect(composed(app, words), words)


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("train recipe.mixup=0 recipe.cutmix=0 recipe.mix_prob=0.5", "recipe.cutmix=1"),
        ("train recipe.cutmix=0 recipe.mix_switch_prob=0.3", "recipe.cutmix=1"),
        ("train recipe.ema_decay=null recipe.ema_batch_size=64", "recipe.ema_decay=0.9"),
        ("train recipe.mesa_start=0.5", "recipe.mesa=1"),
        ("train recipe=finetune30 recipe.warmup_lr=1e-7", "recipe.warmup_epochs=2"),
        ("train recipe.weight_decay=0 recipe.decay_state_matrix=true", "recipe.weight_decay=0.1"),
        ("train trainer.compile=true trainer.compile_min_steps=9", "trainer.compile=null"),
        (
            "train recipe.epochs=4 trainer.val_every_n_epochs=5 data.val_resolution=96",
            "recipe.epochs=5",
        ),
        ("train recipe=demo data.loader=folder data.augment_on=cpu", "recipe.color_jitter=0.4"),
        ("train data=needle recipe=demo data.interpolation=area", "recipe.rand_augment=rand-m9"),
        ("train data.loader=folder data.packed=elsewhere", "data.loader=ffcv"),
        ("train data=needle data.source=elsewhere", "data=shapes"),
        ("train logger=csv logger.mode=online", "logger=wandb"),
        ("train logger.mode=disabled logger.project=mine", "logger.mode=offline"),
        ("train model.mixer=mean model.options.num_heads=[1,1,1,1]", "model.mixer=sema"),
        ("eval model=swin_tiny data=imagenet weights=ema", "~model checkpoint=RUN"),
        ("eval checkpoint=RUN data=shapes data.resolution=64", None),
        ("eval model=swin_tiny data=imagenet model.drop_path_rate=0.3", None),
        ("eval logger.name=csv logger.project=mine", "~logger.name"),
        (f"eval {RUN} tokens=[49]", "~checkpoint"),
        ("eval measure=dispersion model=deit_small bound=2", "~model"),
        ("eval measure=dispersion images=4", "checkpoint=RUN"),
        ("eval measure=dispersion channels_last=false", "checkpoint=RUN"),
        ("eval measure=dispersion data=shapes", "checkpoint=RUN"),
        ("eval measure=dispersion kernels=[softmax] window_size=9", "kernels=[window]"),
        ("eval measure=cost_baselines resolutions=[384]", "cases=[]"),
        (f"eval {EACH} resolutions=[96]", "cases=[]"),
        ("eval measure=study tasks=[needle] pairs=[4]", "tasks=[recall]"),
        ("eval measure=study tasks=[needle] steps.recall=9", "tasks=[recall]"),
        ("eval measure=study mixers=[mean,none] num_heads=4", "mixers=[mean,sema]"),
    ],
)
def test_what_would_have_no_effect_is_told_and_what_gives_it_one_helps(line, needed):
    key = line.split()[-1].split("=")[0]
    with pytest.raises(SemabenchError, match=f"^{re.escape(key)} has no effect .*leave it out"):
        ask(line)
    if needed is not None:
        *before, last = line.split()
        ask(" ".join([*before, needed, last]) if "~" not in needed else _without(line, needed))


def _without(line: str, needed: str) -> str:
    """Return the line with other words in the place of those of a key: ``~model x=1``."""
    gone, *instead = needed.split()
    kept = [word for word in line.split() if not word.startswith(f"{gone[1:]}=")]
    return " ".join([*kept, *instead])


@pytest.mark.parametrize(
    "line",
    [
        "train experiment=demo recipe.lr=0.1",  # whose recipe states mix_prob, mesa_start, ...
        "train recipe=demo recipe.mesa_start=0 recipe.ema_batch_size=null",
        "train model=mila_tiny model.options.num_heads=[1,1,1,1]",
        "eval checkpoint=RUN data=shapes data.packed=elsewhere weights=ema",
        "eval model=deit_small data=imagenet data.resolution=384",  # it is built for that size
        f"eval {RUN} data=shapes images=4 queries=9 window_size=5",
        "eval measure=dispersion tokens=[49] queries=9 window_size=5",
        f"eval {EACH} batch_sizes=[1]",  # of the first case
        "eval measure=study_each mixers=[sema] test_on=calibration",
    ],
)
def test_what_has_an_effect_or_asks_for_nothing_is_let_be(line):
    ask(line)


def schemas():
    return [TrainConfig, *(measure.schema for measure in measures().values())]


@pytest.mark.parametrize("schema", schemas())
def test_every_need_can_be_asked_of_every_config_that_has_the_key(schema):
    config = schema()
    for declaration in declared(schema):
        for need in declaration.key.needs:
            assert need.met(config) in (True, False)
            assert need.when


@pytest.mark.parametrize("schema", schemas())
def test_every_key_is_declared_with_a_default_within_its_own_bounds(schema):
    for declaration in declared(schema):
        told, default = declaration.key, declaration.default
        values = default if isinstance(default, list) else [default]
        for value in values:
            if told.choices and value is not None:
                assert value in told.choices, declaration.name
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert told.low is None or value >= told.low, declaration.name
                assert told.high is None or value <= told.high, declaration.name


def printed(capsys, *words: str) -> str:
    cli.main(["config", *words])
    return capsys.readouterr().out


def test_every_key_of_training_is_in_it_once(capsys):
    text = printed(capsys, "train")
    groups = {"model", "data", "recipe", "trainer", "logger"}
    for declaration in declared(TrainConfig):
        assert text.count(f"| `{declaration.name}` |") == (declaration.name not in groups)


def test_a_key_tells_its_default_bounds_and_needs(capsys):
    row = printed(capsys, "recipe.mesa_start").splitlines()[-1]
    assert row.startswith("| `recipe.mesa_start` | 0.25 |")
    assert "at least 0 and at most 1" in row
    assert "no effect without MESA" in row


def test_all_has_a_section_for_each_app_and_measure(capsys):
    text = printed(capsys)
    for name in ("train", "accuracy", "cost", "dispersion", "study"):
        assert f"## {name}\n" in text


def test_a_mistyped_key_is_told_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        cli.main(["config", "recipe.lrr"])
    assert "Did you mean 'recipe.lr'?" in capsys.readouterr().err
