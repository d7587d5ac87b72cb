"""A search: what it asks for, what it makes of results, where it goes on."""

from functools import partial

import pytest

optuna = pytest.importorskip("optuna")

from omegaconf import OmegaConf  # noqa: E402
from optuna.distributions import (  # noqa: E402
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from semabench.errors import SemabenchError  # noqa: E402
from semabench.sweep.tuning import Search, Settings, TrialReport, split, storage  # noqa: E402

SPACE = {"recipe.lr": FloatDistribution(1e-4, 1e-2, log=True)}


def search(root, **settings):
    values = {"n_trials": 4, "n_jobs": 1, "seed": 20_261_128, "n_startup_trials": 2}
    told = Settings(**{"prune_after": None} | values | settings)
    return Search(root, "name", ["model=m"], SPACE, told)


def lr_of(job):
    (word,) = [word for word in job if word.startswith("recipe.lr=")]
    return float(word.partition("=")[2])


def launcher(seen, value=lambda job: -lr_of(job)):
    def launch(jobs, number):
        seen.extend(jobs)
        return [value(job) for job in jobs]

    return launch


def test_ranges_in_hydras_words():
    kept, space = split(
        ["model=sema_nano", "recipe.epochs=2,3", "+x=choice(a,'b c')", "recipe.lr=interval(1,2.5)"],
        {
            "recipe.lr": "interval(0,1)",
            "w": "tag(log, interval(1e-3, 0.5))",
            "n": "range(1, 8, 2)",
            "l": "tag(log, range(1, 9))",
            "f": "range(0.1, 0.5, 0.1)",
        },
    )
    assert kept == ["model=sema_nano"]
    assert space == {
        "recipe.epochs": CategoricalDistribution(["2", "3"]),
        "+x": CategoricalDistribution(["a", "b\\ c"]),
        "recipe.lr": FloatDistribution(1.0, 2.5),
        "w": FloatDistribution(1e-3, 0.5, log=True),
        "n": IntDistribution(1, 7, step=2),
        "l": IntDistribution(1, 8, log=True),
        "f": FloatDistribution(0.1, 0.4, step=0.1),  # as Hydra's range, without the stop
    }
    with pytest.raises(SemabenchError, match=r"params: .*recipe\.lr=0\.1 is no interval"):
        split([], {"recipe.lr": "0.1"})


def test_jobs_know_their_trial_and_the_best_is_written(tmp_path):
    seen = []
    search(tmp_path, n_jobs=3).run(launcher(seen))
    assert len(seen) == 4
    for number, job in enumerate(seen):
        assert job[0] == "model=m"
        assert job[-1].startswith("trial=name-")
        assert job[-1].endswith(f"/{number}")
    best = OmegaConf.load(tmp_path / "optimization_results.yaml")
    lowest = min(map(lr_of, seen))
    assert best.best_evaluated_params["recipe.lr"] == lowest
    assert best.best_value == -lowest


def test_a_stopped_search_asks_for_what_it_would_have(tmp_path):
    whole, first, second = [], [], []
    search(tmp_path / "whole").run(launcher(whole))

    def stopped(job):
        if len(first) == 3:
            raise KeyboardInterrupt
        return -lr_of(job)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts").run(launcher(first, stopped))
    search(tmp_path / "parts").run(launcher(second))
    assert [job[:-1] for job in [*first[:2], *second]] == [job[:-1] for job in whole]
    assert second[0] == first[2]  # the job that was running
    third = []
    search(tmp_path / "parts").run(launcher(third))
    assert third == []


def test_what_has_failed_is_tried_again_once_a_start(tmp_path):
    first, second = [], []
    search(tmp_path, n_trials=2).run(launcher(first, lambda job: None))
    assert len(first) == 2
    assert not (tmp_path / "optimization_results.yaml").exists()
    search(tmp_path, n_trials=2).run(launcher(second))
    assert [lr_of(job) for job in second] == [lr_of(job) for job in first]


def test_a_trial_below_the_median_ends_early(tmp_path):
    ended = []

    def value(job):
        report = TrialReport(tmp_path, job[-1].removeprefix("trial="))
        good = not ended
        for epoch in range(3):
            if report.ends(50.0 + epoch if good else 10.0, epoch):
                ended.append(epoch)
                return None
        ended.append(None)
        return 52.0

    seen = []
    search(tmp_path, n_trials=3, prune_after=2).run(launcher(seen, value))
    assert ended == [None, 1, 1]  # never after the first epoch
    study = optuna.load_study(storage=storage(tmp_path), study_name=seen[0][-1][6:].split("/")[0])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "PRUNED"]


def test_one_search_at_a_time_and_trials_that_are_none(tmp_path):
    def again(job):
        with pytest.raises(SemabenchError, match="runs already"):
            search(tmp_path).run(launcher([]))
        return 1.0

    search(tmp_path, n_trials=1).run(launcher([], again))
    for trial in ("name/0", "nonsense", "name-abc/x"):
        with pytest.raises(SemabenchError, match=r"is none of .*search\.journal"):
            TrialReport(tmp_path, trial)


def test_trials_of_equal_values_are_one_run(tmp_path):
    seen = []
    space = {"x": CategoricalDistribution(["a", "b"])}
    found = Search(tmp_path, "n", [], space, Settings(6, 6, 0, 6, None))
    found.run(launcher(seen, lambda job: 1.0 + ("x=b" in job)))
    assert sorted(job[0] for job in seen) == ["x=a", "x=b"]
    assert len(found.study.trials) == 6
    assert {t.params["x"]: t.value for t in found.study.trials} == {"a": 1.0, "b": 2.0}


def test_what_ends_a_trial_early_ends_its_equals(tmp_path):
    def value(root, job):
        report = TrialReport(root, job[-1].removeprefix("trial="))
        report.trial.set_user_attr("pruned", True)

    space = {"x": CategoricalDistribution(["a"])}
    for n_jobs in (3, 1):
        seen = []
        found = Search(tmp_path / str(n_jobs), "n", [], space, Settings(3, n_jobs, 0, 6, 1))
        found.run(launcher(seen, partial(value, found.root)))
        assert len(seen) == 1
        assert [trial.state.name for trial in found.study.trials] == ["PRUNED"] * 3


def test_starts_that_are_stopped_leave_no_more_to_do(tmp_path):
    def stopped(job):
        raise KeyboardInterrupt

    search(tmp_path, n_trials=3).run(launcher([], lambda job: None))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, n_trials=3).run(launcher([], stopped))
    seen = []
    search(tmp_path, n_trials=3).run(launcher(seen))
    assert len({lr_of(job) for job in seen}) == len(seen) == 3


def test_a_search_that_was_stopped_while_it_asked_goes_on(tmp_path):
    begun = search(tmp_path, n_trials=2)
    study = optuna.create_study(storage=storage(tmp_path), study_name=begun.name)
    study.ask()  # no value yet
    seen = []
    begun.run(launcher(seen))
    assert len(seen) == 2


def test_a_result_counts_though_the_trial_was_to_end(tmp_path):
    def value(job):
        report = TrialReport(tmp_path, job[-1].removeprefix("trial="))
        report.trial.set_user_attr("pruned", True)
        return 7.0

    found = search(tmp_path, n_trials=1)
    found.run(launcher([], value))
    assert found.study.best_value == 7.0


@pytest.mark.parametrize("wrong", [{"n_trials": 0}, {"n_jobs": None}, {"prune_after": 0}])
def test_numbers_below_their_least(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(SemabenchError, match=rf"hydra\.sweeper\.{name} must be at least 1, not"):
        search(tmp_path, **wrong)
