"""What TensorBoard shows of an evaluation."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.rows import row
from semabench.results.tensorboard_log import log_curves


def curve(place, name="eval/top1"):
    events = EventAccumulator(str(place))
    events.Reload()
    return [(event.step, round(event.value, 3)) for event in events.Scalars(name)]


def test_each_dataset_is_a_curve_over_pixels_and_newer_rows_take_its_place(tmp_path):
    rows = [row(resolution=96, top1=50.0), row(resolution=128, top1=60.0)]
    log_curves(tmp_path, [*rows, row(dataset="other", resolution=96, top1=40.0)])
    assert curve(tmp_path / f"eval-{rows[0].dataset}") == [(96, 50.0), (128, 60.0)]
    assert curve(tmp_path / "eval-other") == [(96, 40.0)]
    log_curves(tmp_path, rows[1:])
    assert curve(tmp_path / f"eval-{rows[0].dataset}") == [(128, 60.0)]
