import errno
import multiprocessing
import os
import resource
import signal

import pytest

from helpers.rows import row
from semabench.errors import SemabenchError
from semabench.results.store import append_record, find_results, read_results, read_rows


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run" / "results.jsonl"


def test_appends_and_reads_back(file):
    rows = [row(resolution=r) for r in (64, 96, 128)]
    for record in rows:
        append_record(file, record)
    assert read_rows(file) == rows


def test_no_file_has_no_rows(file):
    assert read_rows(file) == []


@pytest.mark.parametrize("keep", [1, 20, -2])
def test_torn_last_line_is_left_out_then_repaired(file, keep, caplog):
    append_record(file, row(resolution=64))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:keep])
    assert read_rows(file) == [row(resolution=64)]
    assert "torn" in caplog.text
    append_record(file, row(resolution=96))
    assert [r.resolution for r in read_rows(file)] == [64, 96]
    assert file.read_bytes().startswith(whole)


def test_last_line_without_newline_is_kept(file):
    append_record(file, row(resolution=64))
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    append_record(file, row(resolution=96))
    assert [r.resolution for r in read_rows(file)] == [64, 96]


def test_damage_in_the_middle_is_an_error_with_its_line(file):
    append_record(file, row())
    file.write_bytes(b'{"schema": 1\n' + file.read_bytes())
    with pytest.raises(SemabenchError, match=r"results\.jsonl:1: not valid JSON"):
        read_rows(file)


def _append_under_limit(file, limit, outcome):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # writes stop as on a full disk
    try:
        append_record(file, row(resolution=128))
    except SemabenchError as error:
        outcome.send(str(error))


def test_full_disk_leaves_no_half_line(file):
    append_record(file, row(resolution=64))
    before = file.read_bytes()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_append_under_limit, args=(file, len(before) + 50, theirs)
    )
    process.start()
    process.join()
    assert ours.poll()
    assert "cannot write" in ours.recv()
    assert file.read_bytes() == before


def test_failed_flush_takes_the_row_back(file, monkeypatch):
    append_record(file, row(resolution=64))
    before = file.read_bytes()

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SemabenchError, match="cannot write"):
        append_record(file, row(resolution=96))
    assert file.read_bytes() == before


def test_not_a_number_is_not_stored(file):
    with pytest.raises(SemabenchError, match="not finite"):
        append_record(file, row(images_per_second=float("nan")))
    assert not file.exists()


def _append_many(file, seed):
    for resolution in range(32, 57):
        append_record(file, row(resolution=resolution, seed=seed))


def test_parallel_writers_lose_nothing(file):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(file, seed)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len({(r.seed, r.resolution) for r in read_rows(file)}) == 100


def test_finds_runs_at_any_depth_and_keeps_the_newest(tmp_path):
    append_record(tmp_path / "a" / "results.jsonl", row(top1=10.0, time="2026-01-02T00:00:00Z"))
    append_record(tmp_path / "b" / "c" / "results.jsonl", row(top1=20.0))
    append_record(tmp_path / "b" / "c" / "results.jsonl", row(resolution=128))
    found = read_results([tmp_path])
    assert [(r.resolution, r.top1) for r in found] == [(96, 10.0), (128, 90.0)]
    assert read_results([tmp_path / "a" / "results.jsonl"])[0].top1 == 10.0


@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z"])
def test_later_line_wins_whatever_the_clock_of_its_host_said(file, time):
    append_record(file, row(top1=10.0))
    append_record(file, row(top1=20.0, time=time))
    assert [r.top1 for r in read_results([file])] == [20.0]


def test_no_results_is_an_error(tmp_path):
    with pytest.raises(SemabenchError, match="no results in"):
        read_results([tmp_path])
    with pytest.raises(SemabenchError, match="no such run"):
        find_results(tmp_path / "absent")
    with pytest.raises(SemabenchError, match="name at least one"):
        read_results([])
