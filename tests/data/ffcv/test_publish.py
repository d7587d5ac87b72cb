"""Whatever stops the writing, nothing is left that looks finished, and the next run succeeds."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest

from helpers.image_makers import write_tree
from semabench.data.ffcv import publish
from semabench.data.ffcv.check import require_intact
from semabench.data.ffcv.format import sidecar_path
from semabench.data.ffcv.pack import pack
from semabench.errors import SemabenchError

PROGRAM = """
import sys, time
from pathlib import Path
from semabench.data.ffcv import pack as module
from semabench.errors import SemabenchError
original = module.PackEncoder.__call__
def slow(self, index, data):
    time.sleep({delay})
    return original(self, index, data)
module.PackEncoder.__call__ = slow
try:
    module.pack(Path(sys.argv[1]), Path(sys.argv[2]), workers=2, mode="raw")
except SemabenchError as error:
    sys.exit(f"error: {{error}}")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    return write_tree(root, "train", {"a": 60, "b": 40}, width=200, height=160)


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory):
    return pack(tree, tmp_path_factory.mktemp("whole"), mode="raw").path.read_bytes()


def start(tree, out, delay=0.02):
    command = [sys.executable, "-c", PROGRAM.format(delay=delay), str(tree), str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for_partial(out, process, size=1 << 20):
    partial = out / "train.beton.partial"
    while not (partial.exists() and partial.stat().st_size > size):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)


def assert_unfinished(out):
    with pytest.raises(SemabenchError):
        require_intact(out / "train.beton")
    assert not sidecar_path(out / "train.beton").exists()


@pytest.mark.timeout(60)
def test_kill_leaves_nothing_that_looks_finished(tree, tmp_path, whole):
    process = start(tree, tmp_path)
    wait_for_partial(tmp_path, process)
    process.kill()
    process.communicate()
    assert_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["train.beton.partial"]
    done = pack(tree, tmp_path, mode="raw")
    assert done.path.read_bytes() == whole
    assert not (tmp_path / "train.beton.partial").exists()


@pytest.mark.timeout(60)
def test_ctrl_c_ends_at_once_and_cleans_up(tree, tmp_path):
    process = start(tree, tmp_path, delay=0.1)
    wait_for_partial(tmp_path, process, size=1 << 18)
    stopped = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate()
    assert time.monotonic() - stopped < 5
    assert process.returncode == -signal.SIGINT
    assert errors.decode().count("Traceback") == 1  # this program's own; none from workers
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
def test_a_killed_worker_is_one_line_and_no_hang(tree, tmp_path):
    process = start(tree, tmp_path)
    wait_for_partial(tmp_path, process)
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
        os.kill(int(children.read().split()[0]), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "error: a worker process died (killed by SIGKILL" in errors.decode()
    assert "Traceback" not in errors.decode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
def test_a_second_packer_is_refused_and_the_first_is_not_disturbed(tree, tmp_path, whole):
    process = start(tree, tmp_path)
    wait_for_partial(tmp_path, process)
    with pytest.raises(SemabenchError, match="another process is writing"):
        pack(tree, tmp_path, mode="raw")
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert (tmp_path / "train.beton").read_bytes() == whole


def _report_packing(tree, directory, outcomes):
    try:
        outcomes.put(pack(tree, directory, mode="raw", workers=1).fresh)
    except SemabenchError as error:
        outcomes.put(str(error))


def test_two_packers_at_the_same_moment(tree, tmp_path, whole):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    packers = [
        context.Process(target=_report_packing, args=(tree, tmp_path, queue)) for _ in range(2)
    ]
    for packer in packers:
        packer.start()
    outcomes = [queue.get(timeout=60) for _ in packers]
    for packer in packers:
        packer.join()
    assert outcomes.count(True) == 1
    other = next(outcome for outcome in outcomes if outcome is not True)
    assert other is False or "another process is writing" in other
    assert (tmp_path / "train.beton").read_bytes() == whole


def test_full_disk_by_file_size_limit(tree, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, limits[1]))
    try:
        with pytest.raises(SemabenchError, match=r"cannot write .*train\.beton: .* GiB free"):
            pack(tree, tmp_path, mode="raw")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_for_real(tree, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk; the file size limit stands in")
    try:
        with pytest.raises(SemabenchError, match="No space left on device"):
            pack(tree, tmp_path, mode="raw")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


STEPS = ["checksum", "replace_pair", "sidecar", "unlink", "replace", "sync"]


def interrupt(monkeypatch, step):
    """Raise ctrl-C just before the given step of putting the file in place."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    if step in ("checksum", "replace_pair"):
        monkeypatch.setattr(publish, step, stop)
    elif step == "sync":
        monkeypatch.setattr(publish, "_sync_directory", stop)
    elif step == "replace":
        monkeypatch.setattr(publish.os, "replace", stop)
    elif step == "sidecar":
        monkeypatch.setattr(publish.Sidecar, "to_json", stop)
    else:
        monkeypatch.setattr(publish.Path, "unlink", stop)


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupt_between_any_two_steps(tree, tmp_path, whole, monkeypatch, step):
    with monkeypatch.context() as patch:
        interrupt(patch, step)
        with pytest.raises(KeyboardInterrupt):
            pack(tree, tmp_path, mode="raw")
    assert_unfinished(tmp_path)
    done = pack(tree, tmp_path, mode="raw", overwrite=(tmp_path / "train.beton").exists())
    assert done.path.read_bytes() == whole


@pytest.mark.parametrize("step", STEPS)
def test_the_old_pair_stands_or_nothing_vouches(tree, tmp_path, monkeypatch, step):
    """An old sidecar never describes a new file, whatever moment the overwriting stops at."""
    old = pack(tree, tmp_path)
    content = old.path.read_bytes()
    with monkeypatch.context() as patch:
        interrupt(patch, step)
        with pytest.raises(KeyboardInterrupt):
            pack(tree, tmp_path, mode="raw", overwrite=True)
    if sidecar_path(old.path).exists():
        assert require_intact(old.path) == old.sidecar
        assert old.path.read_bytes() == content
    else:
        with pytest.raises(SemabenchError):
            require_intact(old.path)


def test_killed_between_the_two_renames_is_done_again(tree, tmp_path, whole):
    """The file is in place, its sidecar still called .partial: ours to replace without asking."""
    done = pack(tree, tmp_path, mode="raw")
    side = sidecar_path(done.path)
    side.rename(side.with_name(side.name + ".partial"))
    with pytest.raises(SemabenchError, match="has no sidecar"):
        require_intact(done.path)
    again = pack(tree, tmp_path, mode="raw")
    assert again.fresh
    assert again.path.read_bytes() == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".train.beton.verified",
        "train.beton",
        "train.beton.json",
    ]


def test_stale_partial_is_replaced(tree, tmp_path, whole):
    (tmp_path / "train.beton.partial").write_bytes(bytes(len(whole) + 99))
    assert pack(tree, tmp_path, mode="raw").path.read_bytes() == whole


def test_output_that_cannot_be_written(tree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SemabenchError, match="cannot write"):
        pack(tree, tmp_path / "file")


def test_damaged_target_is_not_called_finished(tree, tmp_path):
    done = pack(tree, tmp_path, mode="raw")
    with open(done.path, "r+b") as file:
        file.seek(5000)
        file.write(b"\1\2\3\4")
    with pytest.raises(SemabenchError, match="is damaged: pass --overwrite"):
        pack(tree, tmp_path, mode="raw")
    os.truncate(done.path, 1000)
    with pytest.raises(SemabenchError, match="is damaged: pass --overwrite"):
        pack(tree, tmp_path, mode="raw")
    assert pack(tree, tmp_path, mode="raw", overwrite=True).fresh


def test_space_is_asked_for_in_advance(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(5 << 30)
    monkeypatch.setattr(publish.shutil, "disk_usage", lambda path: usage)
    publish.require_space(tmp_path / "not" / "yet", 5 << 30, "it")
    with pytest.raises(SemabenchError, match=r"it needs 6\.00 GiB in .*, 5\.00 are free"):
        publish.require_space(tmp_path / "not" / "yet", 6 << 30, "it")
