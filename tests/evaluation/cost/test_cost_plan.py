"""What is measured, in which order; what is refused before anything is."""

import pytest

from helpers.configs import composed
from semabench.config.schema import to_config
from semabench.errors import SemabenchError
from semabench.evaluation.cost import MEASURE
from semabench.evaluation.cost.plan import (
    Condition,
    by_condition,
    conditions,
    estimate_seconds,
    in_turn,
    plan_jobs,
    waves,
)
from semabench.evaluation.cost.schema import CostConfig, CostModel, cost_models
from semabench.evaluation.cost.workload import Setting

CPU = Setting("cpu", "32-true", True, 5, 0.3)


def config(*overrides, measure="cost"):
    made = to_config(composed("eval", [f"measure={measure}", *overrides]), CostConfig)
    MEASURE.check(made)
    return made


BASE = ("models=[sema_nano,mila_nano]", "resolutions=[32,48]")


def test_every_yaml_key_is_in_the_schema_and_written_out():
    assert set(composed("eval", ["measure=cost"])) == set(vars(CostConfig()))


def test_conditions_are_the_product_eager_ones_first():
    found = conditions(config(*BASE, "batch_sizes=[2]", "modes=[train]"))
    assert found == [
        Condition("eager", "train", 32, 2),
        Condition("eager", "train", 48, 2),
        Condition("compiled", "train", 32, 2),
        Condition("compiled", "train", 48, 2),
    ]


def test_cases_fill_in_from_the_lists_and_repeat_nothing():
    found = conditions(
        config(
            *BASE,
            "executions=[eager]",
            "modes=[infer]",
            "batch_sizes=[4]",
            "cases=[{resolutions: [64]},{resolutions: [64,96],batch_sizes: [4,2]}]",
        )
    )
    assert [(c.resolution, c.batch_size) for c in found] == [(64, 4), (64, 2), (96, 4), (96, 2)]


def test_the_baselines_are_those_of_the_table():
    made = config(measure="cost_baselines")
    models = cost_models(made)
    assert [model.name for model in models] == [
        "sema_tiny",
        "mila_tiny",
        "vmamba_tiny_s1l8",
        "vim_small",
        "swin_tiny_patch4_window7_224",
        "deit_small_patch16_224",
        "convnext_tiny",
    ]
    assert models[4].fused_attention
    assert {(c.mode, c.resolution, c.batch_size) for c in conditions(made)} == {
        *((mode, 224, size) for mode in ("infer", "train") for size in (128, 256)),
        ("infer", 512, 32),
        ("infer", 1024, 8),
    }
    assert made.output_dir == "outputs/cost_baselines"


def test_jobs_know_their_row_before_they_are_measured():
    made = config(
        "models=[sema_nano,{name: vim_nano,options: {backend: reference}}]",
        "resolutions=[32]",
        "channels_last=false",
    )
    jobs = plan_jobs(made, Setting("cpu", "32-true", False, 5, 0.3))
    assert len(jobs) == len({job.row.key for job in jobs}) == 8
    row = next(j.row for j in jobs if j.spec.name == "vim_nano" and j.row.execution == "compiled")
    assert (row.options, row.backend) == ("backend=reference", "reference")
    assert (row.execution, row.layout) == ("compiled", "nchw")
    assert (row.measure, row.device, row.precision) == ("cost", "cpu", "32-true")
    assert "torch" in row.versions


def test_peers_share_a_condition_and_many_models_go_in_turn():
    made = config("models=[sema_nano,mila_nano,linear_nano]", "resolutions=[32,48]")
    jobs = plan_jobs(made, CPU)
    groups = list(in_turn(jobs, 2))
    assert [sorted({job.spec.name for job in group}) for group in groups] == [
        ["mila_nano", "sema_nano"],
        ["linear_nano"],
    ]
    for group in by_condition(jobs, "eager"):
        assert [job.spec.name for job in group] == ["sema_nano", "mila_nano", "linear_nano"]
        assert len({job.condition for job in group}) == 1


def test_waves_of_compilation_keep_every_process_busy_and_peers_together():
    made = config("models=[sema_nano,mila_nano]", measure="cost_baselines")
    jobs = plan_jobs(made, CPU)
    found = list(waves(jobs, conditions(made)))
    names = [{job.condition.title for job in wave} for wave in found]
    assert names == [
        {
            "infer compiled  224 px  batch 128",
            "infer compiled  512 px  batch 32",
            "train compiled  224 px  batch 128",
        },
        {
            "infer compiled  224 px  batch 256",
            "infer compiled  1024 px  batch 8",
            "train compiled  224 px  batch 256",
        },
    ]
    assert sorted(j.row.key for wave in found for j in wave) == sorted(
        job.row.key for job in jobs if job.condition.execution == "compiled"
    )
    # One model's conditions that are measured already leave its peers where they were.
    rest = [j for j in jobs if j.spec.name == "mila_nano" or j.condition.batch_size > 128]
    assert [
        {job.condition.title for job in wave} for wave in waves(rest, conditions(made))
    ] == names


def test_nothing_compiled_makes_no_wave():
    made = config(*BASE, "executions=[eager]")
    assert list(waves(plan_jobs(made, CPU), conditions(made))) == []


def test_the_estimate_grows_with_the_work():
    made = config(*BASE)
    jobs = plan_jobs(made, CPU)
    eager = [job for job in jobs if job.condition.execution == "eager"]
    assert 0 < estimate_seconds(eager, made) < estimate_seconds(jobs, made)


def test_the_same_model_twice_is_one():
    made = config("models=[sema_nano,{name: sema_nano}]", "resolutions=[32]")
    assert cost_models(made) == [CostModel("sema_nano")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("resolutions=[32]",), "no models"),
        (("models=[sema_nano]",), "no resolutions"),
        ((*BASE, "batch_sizes=[]"), "no batch_sizes"),
        ((*BASE, "modes=[infr]"), "Did you mean 'infer'"),
        ((*BASE, "executions=[compile]"), "Did you mean 'compiled'"),
        (("models=[sema_nano]", "resolutions=[31]"), "at least 32 pixels, not 31"),
        ((*BASE, "batch_sizes=[0]"), "batch_sizes must be at least 1"),
        ((*BASE, "rounds=0"), "rounds must be at least 1"),
        ((*BASE, "accelerator=gpux"), "Did you mean 'gpu'"),
        (("models=[{nam: sema_nano}]", "resolutions=[32]"), "'nam'.*Did you mean 'name'"),
        (("models=[{mixer: sema}]", "resolutions=[32]"), "name=..."),
        (("models=[3]", "resolutions=[32]"), "neither a name"),
        ((*BASE, "rounds=many"), "rounds"),
        ((*BASE, "+cases=[{resolution: [3]}]"), "resolution"),
    ],
)
def test_bad_input_is_one_line(overrides, message):
    with pytest.raises(SemabenchError, match=message) as error:
        config(*overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("sema_nanno", "Did you mean 'sema_nano'"),
        ("{name: sema_nano,mixer: semma}", "semma"),
        ("{name: resnet18,options: {depht: 3}}", "no option 'depht'"),
        (
            "{name: resnet18,fused_attention: true}",
            "leave fused_attention out",
        ),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_beforehand(models, message):
    with pytest.raises(SemabenchError, match=message):
        plan_jobs(config(f"models=[{models}]", "resolutions=[32]"), CPU)
