"""What TensorBoard, MLflow and trackio show of an evaluation, and that none of them ends it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.rows import row
from semabench.errors import SemabenchError
from semabench.results.trackers import (
    MLFLOW_RUN,
    TRACKIO_RUN,
    forget_runs,
    join_mlflow,
    log_curves,
    mlflow_uri,
    require_trackers,
)


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Of a run; MLflow's runs are beside its experiment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # put back whatever is set in between
    made = tmp_path / "outputs" / "demo" / "run"
    made.mkdir(parents=True)
    return made


def curve(place, name="eval/top1"):
    events = EventAccumulator(str(place))
    events.Reload()
    return [(event.step, round(event.value, 3)) for event in events.Scalars(name)]


def rows():
    found = [row(resolution=96, top1=50.0), row(resolution=128, top1=60.0)]
    return [*found, row(dataset="other (1)", resolution=96, top1=40.0)]


def test_each_dataset_is_a_curve_over_pixels_and_newer_rows_take_its_place(directory):
    log_curves(["tensorboard", "csv"], directory, rows(), "p")
    name, place = rows()[0].dataset, directory / "tensorboard"
    assert curve(place / f"eval-{name}") == [(96, 50.0), (128, 60.0)]
    assert curve(place / "eval-other (1)") == [(96, 40.0)]
    log_curves(["tensorboard"], directory, rows()[1:2], "p")
    assert curve(place / f"eval-{name}") == [(128, 60.0)]


def test_reals_labels_are_a_curve_of_their_own(directory):
    both = [row(resolution=96, top1=50.0), row(resolution=96, top1=56.0, labels="real")]
    log_curves(["tensorboard"], directory, both, "p")
    name, place = both[0].dataset, directory / "tensorboard"
    assert curve(place / f"eval-{name}") == [(96, 50.0)]
    assert curve(place / f"eval-{name}-real") == [(96, 56.0)]


def test_mlflow_has_each_point_once(directory, monkeypatch):
    other = row(resolution=96, top1=51.0, precision="bf16-mixed")  # of the same curve
    for _ in range(3):
        log_curves(["mlflow"], directory, [*rows(), other], "p")
    monkeypatch.chdir(directory.parent)
    log_curves(["mlflow"], directory.relative_to(directory.parent), rows(), "p")  # `cd` into it
    assert [path.name for path in directory.parents[1].glob("*.db")] == ["mlflow.db"]
    client = MlflowClient(mlflow_uri(directory))
    run = (directory / MLFLOW_RUN).read_text().strip()
    key = f"eval-{rows()[0].dataset}/top1"
    points = sorted((point.step, point.value) for point in client.get_metric_history(run, key))
    assert points == [(96, 50.0), (96, 51.0), (128, 60.0)]
    assert (client.get_run(run).info.run_name, client.get_run(run).info.status) == (
        "run",
        "FINISHED",
    )
    assert client.get_metric_history(run, "eval-other _1_/top1")[0].value == 40.0


def test_a_run_that_is_gone_gets_a_new_one(directory, caplog):
    (directory / MLFLOW_RUN).write_text("0" * 32)
    _, run, fresh = join_mlflow(directory, "p")
    assert fresh
    assert "has no run 000" in caplog.text
    assert join_mlflow(directory, "p")[1:] == (run, False)
    forget_runs(directory)
    assert join_mlflow(directory, "p")[1] != run


def test_processes_that_start_at_once_make_one_database(directory):
    program = (
        "import sys, pathlib; from semabench.results.trackers import join_mlflow;"
        "join_mlflow(pathlib.Path(sys.argv[1]), 'p')"
    )
    places = [directory.with_name(f"run-{k}") for k in range(3)]
    for place in places:
        place.mkdir()
    started = [subprocess.Popen([sys.executable, "-c", program, str(p)]) for p in places]
    assert [process.wait() for process in started] == [0, 0, 0]
    client = MlflowClient(mlflow_uri(directory))
    assert len([e for e in client.search_experiments() if e.name == "p"]) == 1


def test_trackio_has_each_row_once(directory, monkeypatch):
    """Its package has no version that goes with our Pillow; what it is told is checked."""
    told, begun = [], []

    def init(**options):
        begun.append(options)
        return SimpleNamespace(log=told.append, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init))
    found = rows()
    for _ in range(2):
        log_curves(["trackio"], directory, found, "p")
    log_curves(["trackio"], directory, [*found, row(resolution=160, top1=30.0)], "p")
    assert [options["resume"] for options in begun] == ["allow", "allow"]
    assert begun[0]["name"] == begun[1]["name"] == (directory / TRACKIO_RUN).read_text().strip()
    assert begun[0]["name"].startswith("demo/run-")
    name = rows()[0].dataset
    accuracies = [(one["eval/resolution"], one.get(f"eval-{name}/top1")) for one in told]
    assert accuracies == [(96, 50.0), (128, 60.0), (96, None), (160, 30.0)]


def test_a_tracker_that_fails_is_a_warning(directory, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/such/place.db")
    log_curves(["mlflow", "tensorboard"], directory, rows(), "p")
    assert caplog.text.count("mlflow cannot show the evaluation") == 1
    assert curve(directory / "tensorboard" / f"eval-{rows()[0].dataset}")


@pytest.mark.parametrize(
    ("tracker", "module"), [("mlflow", "mlflow.tracking"), ("trackio", "trackio")]
)
def test_what_is_not_installed_is_told(monkeypatch, tracker, module):
    monkeypatch.setitem(sys.modules, module, None)
    require_trackers(["csv", "wandb", "tensorboard"])
    with pytest.raises(SemabenchError, match=f"logger={tracker} needs its package: pip install"):
        require_trackers(["csv", tracker])
