import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.rows import row
from semabench.errors import SemabenchError
from semabench.results.record import KEY_FIELDS, SCHEMA, SERIES_FIELDS, Record, accuracy

floats = st.floats(0, 100)


@settings(deadline=None)
@given(floats, st.text(), st.integers(0, 10**9), st.none() | floats)
def test_survives_json(top1, name, n, speed):
    record = row(top1=top1, run=name, n=n, images_per_second=speed)
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_key_and_series_name_fields():
    names = {field.name for field in dataclasses.fields(Record)}
    assert set(KEY_FIELDS) < names
    assert set(SERIES_FIELDS) < names


def test_key_is_known_before_measuring():
    planned = Record(model="m", resolution=96, checkpoint="c")
    measured = dataclasses.replace(planned, top1=50.0, images_per_second=3.0, time="later")
    assert planned.key == measured.key


@pytest.mark.parametrize("name", KEY_FIELDS)
def test_key_tells_measurements_apart(name):
    value = getattr(row(), name)
    other = f"{value}x" if isinstance(value, str) else (value or 0) + 1
    assert dataclasses.replace(row(), **{name: other}).key != row().key


def test_a_halved_batch_is_the_measurement_that_was_asked_for():
    planned = row(measure="cost", batch_size=128)
    halved = dataclasses.replace(planned, batch_size=32, asked_batch_size=128)
    assert halved.key == planned.key
    assert halved.key != row(measure="cost", batch_size=32).key


def test_rows_from_before_there_was_cost_are_read_as_accuracy():
    old = row().to_dict() | {"schema": 1}
    for name in ("measure", "mode", "execution", "asked_batch_size", "rounds", "latency_ms"):
        del old[name]
    assert Record.from_dict(old).measure == "accuracy"
    assert Record.from_dict(old).key == row().key


def test_unknown_field_names_the_nearest():
    with pytest.raises(SemabenchError, match=r"'top_1'.*'top1'"):
        Record.from_dict(row().to_dict() | {"top_1": 3})


def test_newer_schema_asks_for_an_upgrade_even_with_unknown_fields():
    with pytest.raises(SemabenchError, match="upgrade"):
        Record.from_dict({"schema": SCHEMA + 1, "something": "new"})


@pytest.mark.parametrize(
    "change",
    [{"model": 3}, {"n": "many"}, {"n": True}, {"resolution": None}, {"top1": 101.0}, {"n": -1}],
)
def test_impossible_values_are_refused(change):
    with pytest.raises(SemabenchError):
        Record.from_dict(row().to_dict() | change)


@pytest.mark.parametrize("missing", ["schema", "model", "resolution"])
def test_missing_fields_are_refused(missing):
    values = row().to_dict()
    del values[missing]
    with pytest.raises(SemabenchError, match=missing):
        Record.from_dict(values)


def test_accuracy_has_the_binomial_standard_error():
    assert accuracy(80, 100) == (80.0, pytest.approx(4.0))
    assert accuracy(900, 900) == (100.0, 0.0)
    with pytest.raises(ValueError, match="3 correct of 2"):
        accuracy(3, 2)
