import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.rows import row
from semabench.errors import SemabenchError
from semabench.results.csv_file import compact_csv
from semabench.results.record import (
    KEY_FIELDS,
    SCHEMA,
    Record,
    accuracy,
    git_commit,
    software_versions,
)
from semabench.results.store import read_rows

floats = st.floats(0, 100)


@settings(deadline=None)
@given(floats, st.text(), st.integers(0, 10**9), st.none() | floats)
def test_survives_json(top1, name, n, speed):
    record = row(top1=top1, run=name, n=n, images_per_second=speed)
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


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
    assert Record.from_dict(old).key == row(execution="eager").key


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ({"backend": "sdpa"}, {"backend": "sdpa", "execution": "eager"}),
        ({"backend": "sdpa+compile"}, {"backend": "sdpa", "execution": "compiled"}),
        (
            {"backend": "kv+compile+nchw"},
            {"backend": "kv", "execution": "compiled", "layout": "nchw"},
        ),
        (
            {"measure": "cost", "backend": "kv+nchw", "execution": "eager"},
            {"backend": "kv", "execution": "eager", "layout": "nchw"},
        ),
        (
            {
                "measure": "study",
                "fingerprint": "recall v1, clear 3, m 4,8, calibration 0",
                "train_resolutions": "96,128",
            },
            {
                "fingerprint": "recall v1, clear 3, m 4,8",
                "tested_on": "calibration",
                "test_seed": 0,
                "train_resolutions": (96, 128),
            },
        ),
        (
            {
                "measure": "dispersion",
                "dataset": "random",
                "fingerprint": "q, k in ±0.5, d 32, v keys, seed 3",
                "seed": 3,
            },
            {"fingerprint": "", "input_bound": 0.5, "input_dim": 32, "input_values": "keys"},
        ),
        ({"fingerprint": "needle v1, clear 3, test 0"}, {"tested_on": "", "execution": "eager"}),
    ],
)
def test_an_old_row_is_the_measurement_that_a_new_one_tells_in_fields(old, now):
    stored = {"schema": 4, "model": "m", "resolution": 64, **old}
    found = Record.from_dict(stored)
    assert found == Record(**{**stored, "schema": SCHEMA, "time": found.time, **now})
    assert found.key == Record(**{**stored, **now}).key
    again = json.loads(json.dumps(found.to_dict()))
    assert Record.from_dict(again) == found


COMMITTED = Path(__file__).resolve().parents[2] / "results"


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*.csv")), ids=lambda path: path.stem)
def test_committed_rows_of_older_schemas_are_read_and_written_alike(path, tmp_path):
    rows = read_rows(path)
    assert {row.schema for row in rows} == {SCHEMA}
    # An execution was part of the backend's name once.
    assert {"eager", "compiled"}.isdisjoint(part for r in rows for part in r.backend.split("+"))
    assert {row.tested_on for row in rows if row.measure == "study"} <= {"test", "calibration"}
    (tmp_path / "again.csv").write_text(compact_csv(rows))
    assert read_rows(tmp_path / "again.csv") == rows


def test_unknown_field_names_the_nearest():
    with pytest.raises(SemabenchError, match=r"'top_1'.*'top1'"):
        Record.from_dict(row().to_dict() | {"top_1": 3})


def test_newer_schema_asks_for_an_upgrade_even_with_unknown_fields():
    with pytest.raises(SemabenchError, match="upgrade"):
        Record.from_dict({"schema": SCHEMA + 1, "something": "new"})


@pytest.mark.parametrize(
    "change",
    [
        {"model": 3},
        {"train_resolutions": ["96"]},
        {"n": "many"},
        {"n": True},
        {"resolution": None},
        {"top1": 101.0},
        {"n": -1},
    ],
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


def test_versions_are_short_and_whole():
    assert re.fullmatch(r"torch \S+, timm \S+, semabench \d+\.\d+\.\d+", software_versions())


def test_commit_is_a_hash_or_nothing():
    assert re.fullmatch(r"([0-9a-f]{12}\+?)?", git_commit())
