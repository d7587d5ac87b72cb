"""What TensorBoard, MLflow and trackio show of an evaluation."""

import sys
from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.rows import row
from semabench.errors import SemabenchError
from semabench.results.curves import MLFLOW_RUN, log_curves, mlflow_uri


def curve(place, name="eval/top1"):
    events = EventAccumulator(str(place))
    events.Reload()
    return [(event.step, round(event.value, 3)) for event in events.Scalars(name)]


def rows():
    found = [row(resolution=96, top1=50.0), row(resolution=128, top1=60.0)]
    return [*found, row(dataset="other", resolution=96, top1=40.0)]


def test_each_dataset_is_a_curve_over_pixels_and_newer_rows_take_its_place(tmp_path):
    log_curves(["tensorboard", "csv"], tmp_path, rows(), "p")
    name, place = rows()[0].dataset, tmp_path / "tensorboard"
    assert curve(place / f"eval-{name}") == [(96, 50.0), (128, 60.0)]
    assert curve(place / "eval-other") == [(96, 40.0)]
    log_curves(["tensorboard"], tmp_path, rows()[1:2], "p")
    assert curve(place / f"eval-{name}") == [(128, 60.0)]


def test_reals_labels_are_a_curve_of_their_own(tmp_path):
    both = [row(resolution=96, top1=50.0), row(resolution=96, top1=56.0, labels="real")]
    log_curves(["tensorboard"], tmp_path, both, "p")
    name, place = both[0].dataset, tmp_path / "tensorboard"
    assert curve(place / f"eval-{name}") == [(96, 50.0)]
    assert curve(place / f"eval-{name}-real") == [(96, 56.0)]


def test_mlflow_has_each_point_once(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    directory = tmp_path / "outputs" / "demo" / "run"
    directory.mkdir(parents=True)
    for _ in range(2):
        log_curves(["mlflow"], directory, rows(), "p")
    assert (tmp_path / "outputs" / "mlflow.db").exists()
    client = MlflowClient(mlflow_uri(directory))
    run = (directory / MLFLOW_RUN).read_text().strip()
    key = f"eval-{rows()[0].dataset}/top1"
    points = [(point.step, point.value) for point in client.get_metric_history(run, key)]
    assert points == [(96, 50.0), (128, 60.0)]
    assert client.get_run(run).info.run_name == "run"
    assert client.get_metric_history(run, "eval-other/top1")[0].value == 40.0


def test_trackio_has_each_row_once(tmp_path, monkeypatch):
    """Its package has no version that goes with our Pillow; what it is told is checked."""
    told, begun = [], []

    def init(**options):
        begun.append(options)
        return SimpleNamespace(log=told.append, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init))
    found = rows()
    for _ in range(2):
        log_curves(["trackio"], tmp_path, found, "p")
    log_curves(["trackio"], tmp_path, [*found, row(resolution=160, top1=30.0)], "p")
    assert [options["resume"] for options in begun] == ["allow", "allow"]
    name = rows()[0].dataset
    accuracies = [(one["eval/resolution"], one.get(f"eval-{name}/top1")) for one in told]
    assert accuracies == [(96, 50.0), (128, 60.0), (96, None), (160, 30.0)]


@pytest.mark.parametrize(
    ("tracker", "module"), [("mlflow", "mlflow.tracking"), ("trackio", "trackio")]
)
def test_what_is_not_installed_is_told(tmp_path, monkeypatch, tracker, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SemabenchError, match=f"logger={tracker} needs its package: pip install"):
        log_curves([tracker], tmp_path, rows(), "p")
