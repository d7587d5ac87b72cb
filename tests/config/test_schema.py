"""Every config composes, every wrong one is told in one line."""

from dataclasses import asdict
from pathlib import Path

import pytest

from helpers.configs import composed
from semabench.config.check import check_train
from semabench.config.run_name import config_digest, run_name
from semabench.config.schema import TrainConfig, known_keys, to_config
from semabench.data.loader import check_data
from semabench.errors import SemabenchError
from semabench.evaluation.accuracy.schema import EvalConfig
from semabench.measures import measure_asked_for, measures
from semabench.models import model_names

CONF = Path(__file__).resolve().parents[2] / "conf"


def train_config(*overrides: str) -> TrainConfig:
    config = to_config(composed("train", overrides), TrainConfig)
    check_train(config)
    check_data(config.data, config.recipe)
    return config


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml") if not p.stem.startswith("_"))


@pytest.mark.parametrize("group", ["data", "recipe", "trainer", "logger", "experiment"])
def test_every_option_of_every_group_fits_the_schema(group):
    assert options(group)
    for option in options(group):
        train_config(f"{group}={option}")


def test_every_model_config_names_its_own_file():
    """Ours by their whole name, timm's by how its name begins: swin_tiny, _patch4_..."""
    for name in options("model"):
        if name != "timm":
            built = train_config(f"model={name}").model.name
            assert built == name if name in model_names() else built.startswith(name), built


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recipe.resolution_schedule=[[0,96]]", "data.resolution=224"], "ends at 96 px"),
        (["recipe.resolution_schedule=[[1,224]]"], "begin with epoch 0"),
        (["recipe.resolution_schedule=[[0,96],[5,128],[5,224]]"], "go on with later ones"),
        (["recipe.resolution_schedule=[[0,16],[5,224]]"], "at least 32 pixels, not 16"),
        (["recipe.resolution_schedule=[[0,96],[300,224]]"], "changes at epoch 300"),
        (["recipe.resolution_schedule=[[0,96,1]]"], "pairs of epoch and pixels"),
        (["recipe.batch_size=96", "trainer.accumulate=5"], "does not divide the 96 images"),
        (["recipe.batch_size=96", "trainer.devices=4", "trainer.accumulate=5"], "the 24 images"),
        (["recipe.layer_decay=1.5"], "at most 1"),
        (["recipe.mixed_resolutions=[224]"], "at least two sizes"),
        (["recipe.mixed_resolutions=[160,192]"], "lack data.resolution=224"),
        (["recipe.mixed_resolutions=[16,224]"], "recipe.mixed_resolutions must be at least 32"),
        (
            ["recipe.mixed_resolutions=[160,224]", "recipe.resolution_schedule=[[0,224]]"],
            "leave one out",
        ),
        (["recipe.resolution_schedule=[96,224]"], "'recipe.resolution_schedule' is pairs"),
        (["recipe.resolution_schedule=96"], "'recipe.resolution_schedule' is pairs"),
        (["evaluate_at=224"], r"is a list: evaluate_at=\[\.\.\.\]"),
    ],
)
def test_values_that_do_not_fit_together_are_told(overrides, message):
    with pytest.raises(SemabenchError, match=message):
        train_config(*overrides)


def test_later_options_name_a_run_only_where_they_are_used():
    """Runs of before they were known keep their directories; where they are used, they count."""
    plain = train_config()
    values = asdict(plain)
    for key in ("layer_decay", "resolution_schedule"):
        del values["recipe"][key]
    del values["model"]["compiles"]
    assert config_digest(values, seed=True) == config_digest(asdict(plain), seed=True)
    assert run_name(plain) == run_name(train_config("trainer.accumulate=2", "trainer.compile=true"))
    grown = train_config("recipe.resolution_schedule=[[0,128],[100,224]]")
    decayed = train_config("recipe.layer_decay=0.8")
    assert len({run_name(plain), run_name(grown), run_name(decayed)}) == 3


def test_every_key_can_be_overridden():
    """Also those that no YAML file states."""
    plain = train_config()
    assert set(known_keys(TrainConfig)) >= {"recipe.lr", "data.packed", "trainer.compile"}
    raw = composed("train")
    for group in ("model", "data", "recipe", "trainer", "logger"):
        assert set(raw[group]) == set(vars(getattr(plain, group))), group


@pytest.mark.parametrize("measure", measures())
def test_every_key_of_a_measure_can_be_overridden(measure):
    raw = composed("eval", [f"measure={measure}"])
    left_out = {"model", "data"}  # groups, null until one is chosen
    assert set(raw) - {"logger"} | left_out >= set(vars(measures()[measure].schema())) - {"logger"}


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(SemabenchError, match=r"'recipe\.labl_smoothing'.*recipe\.label_smoothing"):
        train_config("+recipe.labl_smoothing=0.1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.lr=fast", r"recipe\.lr.*fast"),
        ("data.resolution=31", "must be at least 32 pixels"),
        ("evaluate_at=[224,16]", "must be at least 32 pixels"),
        ("trainer.accelerator=gpux", "Did you mean 'gpu'"),
        ("data.loader=fcv", "Did you mean 'ffcv'"),
        ("data.loader=drawn", "there is no task 'imagenet'"),
        (["data=needle", "data.hflip=0.5"], "are shown whole"),
        (["data=needle", "data.num_workers=2"], "without workers"),
        ("data.augment_on=gpu", "augment_on=gpu is not known"),
        ("data.augment_on=cpu", "set data.loader=folder"),
        ("recipe.rand_augment=rand-m9-mmax20", "'mmax20' is not supported"),
        ("recipe.random_erase=1.5", "at most 1, not 1.5"),
        ("recipe.color_jitter=0.4", "no effect beside RandAugment"),
        (["model.pretrained=true", "model.checkpoint=x"], "give one of them"),
        ("recipe.repeated_augmentation=0", "at least 1"),
        ("logger.mode=onlin", "Did you mean 'online'"),
        ("recipe.epochs=0", r"recipe\.epochs must be at least 1"),
        ("recipe.lr=inf", r"recipe\.lr must be a finite number"),
        ("model.drop_path_rate=1.5", r"model\.drop_path_rate must be at least 0"),
        ("name=../elsewhere", "cannot name a directory"),
        ("name=.", "cannot name a directory"),
        ("data.name=../x", "cannot name a directory"),
        ("recipe.name=", "cannot name a directory"),
        (f"data.name={'x' * 200}", "has 200 characters"),
        ("recipe.lr=0", r"recipe\.lr must be above 0"),
        ("recipe.ema_decay=3", r"recipe\.ema_decay must be at least 0 and at most 1"),
        ("recipe.label_smoothing=2", r"at most 1, not 2"),
        ("recipe.betas=[0.9]", r"recipe\.betas must be two numbers"),
        ("recipe.betas=[0.9,1.0]", r"must lie in \[0, 1\)"),
        ("data.crop_scale=[0.3,0.5,1.0]", r"data\.crop_scale must be two numbers"),
        ("trainer.devices=0", r"trainer\.devices must be at least 1"),
        ("trainer.log_every_n_steps=0", "at least 1"),
        ("trainer.val_batch_size=0", "at least 1"),
        ("seed=-1", "seed must be at least 0"),
        ("trainer.devices=3", "multiple of the number of devices"),
    ],
)
def test_a_wrong_value_is_one_line(override, message):
    with pytest.raises(SemabenchError, match=message) as error:
        train_config(*([override] if isinstance(override, str) else override))
    assert "\n" not in str(error.value)


def test_a_missing_value_is_named():
    with pytest.raises(SemabenchError, match=r"model\.name=\.\.\."):
        train_config("model=timm")


def test_the_eval_config_composes_without_model_and_data():
    config = to_config(composed("eval", ["resolutions=[64]"]), EvalConfig)
    assert config.model is None
    assert config.data is None
    words = ["model=timm", "model.name=resnet18", "data=imagenet"]
    config = to_config(composed("eval", words), EvalConfig)
    assert config.model is not None
    assert config.model.name == "resnet18"


def test_the_schema_that_a_command_line_means():
    assert measure_asked_for(["measure=cost_baselines", "x=1"]).name == "cost"
    assert measure_asked_for(["measure=dispersion"]).name == "dispersion"
    assert measure_asked_for(["resolutions=[64]"]) is measure_asked_for(["measure=csot"])


def test_the_run_name_is_a_function_of_what_a_run_is():
    base = run_name(train_config("experiment=demo"))
    assert base.startswith("sema_nano-shapes-demo-s0-")
    same = train_config("experiment=demo", "data.num_workers=7", "data.packed=/elsewhere")
    assert run_name(same) == base
    for override in ("recipe.lr=0.5", "data.resolution=64", "model.mixer=linear", "seed=1"):
        assert run_name(train_config("experiment=demo", override)) != base
    assert run_name(train_config("name=mine")) == "mine"


def test_the_digest_without_seed_joins_repetitions():
    from dataclasses import asdict

    first, second = (asdict(train_config(f"seed={s}")) for s in (0, 1))
    assert config_digest(first, seed=False) == config_digest(second, seed=False)
    assert config_digest(first, seed=True) != config_digest(second, seed=True)
