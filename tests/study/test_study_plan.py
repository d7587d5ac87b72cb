"""What a study plans: an order that can be cut, rows that are known before and told apart."""

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.study import MEASURE
from semabench.study.plan import plan_jobs
from semabench.study.schema import StudyCase, StudyConfig

CPU = torch.device("cpu")
STEPS = {"texture": 5, "majority": 5, "needle": 7, "recall": 9}


def config(**changes):
    told = {
        "tasks": ["needle", "recall"],
        "mixers": ["sema", "none"],
        "seeds": [0, 1],
        "train_resolutions": [96, 112],
        "resolutions": [96, 128, 128],
        "pairs": [4, 8],
        "steps": STEPS,
    }
    made = StudyConfig(**(told | changes))
    MEASURE.check(made)
    return made


def test_all_tasks_and_mixers_of_a_seed_come_before_the_next_seed():
    jobs = plan_jobs(config(), CPU)
    told = [(j.training.seed, j.training.task, j.training.mixer) for j in jobs]
    assert told == [
        (s, t, m) for s in (0, 1) for t in ("needle", "recall") for m in ("sema", "none")
    ]
    assert [len(job.rows) for job in jobs] == [2, 2, 4, 4] * 2
    assert {job.training.recipe.steps for job in jobs} == {7, 9}


def test_every_row_has_a_key_of_its_own_and_what_is_stored_is_left_out():
    cases = [StudyCase(), StudyCase(readout="avg"), StudyCase(depth=2), StudyCase(lr=0.1)]
    sizes = {"train_resolutions": [128], "resolutions": [128, 160]}
    jobs = plan_jobs(config(cases=cases, **sizes), CPU)
    keys = [row.key for job in jobs for row in job.rows]
    assert len(set(keys)) == len(keys) == 4 * 24
    (first, *_) = jobs
    assert first.without(set(keys[:1])).rows == first.rows[1:]
    assert first.without(set(keys)).rows == ()


def test_cases_that_share_a_training_train_once():
    cases = [StudyCase(resolutions=[96]), StudyCase(resolutions=[96, 256])]
    jobs = plan_jobs(config(cases=cases, tasks=["needle"], seeds=[0]), CPU)
    assert [[row.resolution for row in job.rows] for job in jobs] == [[96, 256], [96, 256]]


def test_the_pictures_stay_the_same_and_calibration_has_others():
    rows = [job.rows[0] for job in plan_jobs(config(), CPU)]
    assert len({row.fingerprint for row in rows}) == 2  # of two tasks
    other = plan_jobs(config(test_on="calibration"), CPU)[0].rows[0]
    assert (other.tested_on, rows[0].tested_on) == ("calibration", "test")
    assert other.key != rows[0].key


def test_blank_cells_reach_as_far_as_the_convolutions():
    (job, *_) = plan_jobs(config(depth=2, train_resolutions=[160], resolutions=[160]), CPU)
    assert job.training.clear == 6
    assert "clear 6" in job.rows[0].fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["neddle"]}, "Did you mean 'needle'"),
        ({"mixers": ["semma"]}, "Did you mean 'sema'"),
        ({"mixers": []}, "no mixers"),
        ({"resolutions": [100]}, "multiples of 8"),
        ({"train_resolutions": [64]}, "at least 72 pixels, not 64"),
        ({"pairs": [64]}, "from 1 to 32"),
        ({"steps": {"needle": 0, "recall": 1}}, r"steps\.needle must be at least 1"),
        ({"steps": {"neddle": 1}}, "Did you mean 'needle'"),
        ({"readout": "query2"}, "Did you mean 'query'"),
        ({"lr": float("nan")}, "lr must be a finite"),
        ({"num_heads": 3}, "embed_dim=64"),
        ({"seeds": [-1]}, "at least 0"),
        ({"precision": "bf16-mixed"}, "leave precision"),
        ({"test_on": "val"}, "test_on=val is not known"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(SemabenchError, match=message):
        config(**changes)
