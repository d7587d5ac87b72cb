import json
import logging
import os
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import wandb
import yaml

from helpers.configs import composed
from helpers.offline_run import read_offline_run
from helpers.rows import row
from semabench.commands import CONF
from semabench.config.check import check_train
from semabench.config.schema import TrainConfig, to_config
from semabench.errors import SemabenchError
from semabench.results import wandb_log
from semabench.results.wandb_log import keep_artifact, log_evaluation, start_run, wandb_mode

KEY = "0123456789abcdef0123456789abcdef01234567"
ARGUMENT = "token=planted-command-line-argument"
SECRET = "planted-value-of-an-environment-variable"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """No credentials, no netrc of the user's, and a server that nobody runs."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_auto_is_offline_unless_logged_in(monkeypatch):
    monkeypatch.setattr(wandb_log, "_reachable", lambda: True)
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert wandb_mode("auto") == "online"


def test_netrc_is_a_login_for_its_own_host_only(monkeypatch, surroundings):
    monkeypatch.setattr(wandb_log, "_reachable", lambda: True)
    netrc = surroundings / "netrc"
    netrc.write_text(f"machine elsewhere.example login user password {KEY}\n")
    assert wandb_mode("auto") == "offline"
    netrc.write_text(f"machine 127.0.0.1 login user password {KEY}\n")
    assert wandb_mode("auto") == "online"


def test_online_without_network_warns_and_goes_offline(monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with caplog.at_level(logging.WARNING):
        assert wandb_mode("online") == "offline"
    assert "does not answer" in caplog.text


def test_online_without_login_warns_and_goes_offline(caplog):
    assert wandb_mode("online") == "offline"
    assert "wandb login" in caplog.text


def test_a_server_that_fails_at_the_start_is_left_for_a_process_of_its_own(
    tmp_path, monkeypatch, caplog
):
    """The one that was to start online keeps the id: offline, it would be "in use"."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_log, "_reachable", lambda: True)
    happened = []

    def init(*, mode, **_):
        happened.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("503\nand more")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda: happened.append("teardown"))
    start_run(tmp_path, "abc", project="p", name="n", mode="online")
    assert happened == ["online", "teardown", "offline"]
    assert "W&B: 503: logging offline." in caplog.text


def test_names_that_are_no_utf8_are_stored_readably(monkeypatch, surroundings):
    folder = surroundings / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    typed = ["train.py", "data.packed=caf\udce9"]
    monkeypatch.setattr(sys, "argv", typed)
    run = _run(Path("outputs"), config={"data": {"packed": "caf\udce9", "sizes": [1, 2]}})
    log_evaluation(run, [row(dataset="caf\udce9")], first_step=2)
    run.finish()
    assert sys.argv is typed
    (directory,) = (folder / "outputs" / "wandb").glob("offline-run-*")
    stored = read_offline_run(directory)
    assert stored["config"]["data"] == {"packed": "caf\\xe9", "sizes": [1, 2]}
    (table,) = directory.glob("files/media/table/eval/*.json")
    assert "caf\\xe9" in json.loads(table.read_text())["data"][0]


def test_auto_follows_the_environment_and_other_modes_are_taken_as_they_are(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"
    assert wandb_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    with pytest.raises(SemabenchError, match="WANDB_MODE is 'dryrun'"):
        wandb_mode("auto")


def test_unknown_mode_names_the_nearest():
    with pytest.raises(SemabenchError, match="'offline'"):
        wandb_mode("ofline")


def _run(run_dir, **changes):
    settings = {"project": "semabench", "name": "demo", "group": "shapes", "tags": ["demo"]}
    return start_run(run_dir, "demo-1a2b", **(settings | changes))


def test_training_and_evaluation_share_one_run_and_leak_nothing(monkeypatch, surroundings):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("PLANTED", SECRET)
    monkeypatch.setattr(sys, "argv", ["train.py", ARGUMENT])
    run_dir = surroundings / "outputs"
    run = _run(run_dir, config={"model": {"name": "sema_nano"}})  # auto, and no server
    run.log({"train/loss": 2.0})
    run.log({"train/loss": 1.0})
    run.finish()
    run = _run(run_dir, job_type="eval")
    log_evaluation(run, [row(resolution=64, correct=50), row(resolution=96)], first_step=2)
    run.finish()

    directories = sorted((run_dir / "wandb").glob("offline-run-*"))
    runs = sorted((read_offline_run(d) for d in directories), key=lambda r: r["job_type"])
    evaluation, training = runs
    assert (training["id"], evaluation["id"]) == ("demo-1a2b", "demo-1a2b")
    assert (training["project"], training["name"]) == ("semabench", "demo")
    assert (training["group"], training["tags"]) == ("shapes", ["demo"])
    assert training["config"]["model"] == {"name": "sema_nano"}
    assert [line["train/loss"] for line in training["history"]] == [2.0, 1.0]

    assert evaluation["metrics"]["eval/*"] == "eval/resolution"
    logged = [line for line in evaluation["history"] if "eval/top1" in line]
    assert [(r["eval/resolution"], r["eval/top1"]) for r in logged] == [(64, 50.0), (96, 90.0)]
    steps = [line["_step"] for line in training["history"] + evaluation["history"]]
    assert steps == sorted(set(steps))  # so that uploading one after the other drops nothing
    (table,) = [d["eval/results"] for d in evaluation["history"] if "eval/results" in d]
    assert (table["_type"], table["nrows"]) == ("table-file", 2)

    stored = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}
    assert any(b"sema_nano" in content for content in stored.values())
    for secret in (KEY, SECRET, ARGUMENT):
        assert not [path for path, content in stored.items() if secret.encode() in content]
    names = {path.name for path in stored}
    assert not names & {"wandb-metadata.json", "requirements.txt", "output.log", "diff.patch"}
    assert {run[name] for run in runs for name in ("host", "remote")} == {""}


def test_disabled_leaves_no_files(surroundings):
    run = _run(surroundings / "outputs", mode="disabled")
    log_evaluation(run, [row()])
    run.finish()
    assert not list((surroundings / "outputs").rglob("*.wandb"))


def test_a_run_that_a_sweep_has_started_keeps_its_id(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    (tmp_path / "own").mkdir()
    assert wandb_log.run_id(tmp_path / "own") != "abc123"  # of another program's
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert wandb_log.run_id(tmp_path) == "abc123"
    monkeypatch.setenv("WANDB_RUN_ID", "later")  # the same values again: the same run
    assert wandb_log.run_id(tmp_path) == "abc123"


def test_the_sweep_of_wandb_is_a_search_that_train_takes():
    told = yaml.safe_load((Path(CONF) / "wandb_sweep.yaml").read_text())
    words = [word for word in told["command"] if not word.startswith("$")][1:]
    words += [f"{name}={part['min']}" for name, part in told["parameters"].items()]
    config = to_config(composed("train", words), TrainConfig)
    check_train(config)
    assert config.data.holdout == 0.1
    assert told["program"] == "train.py"
    assert told["metric"]["name"] == ("val_ema/top1" if config.recipe.ema_decay else "val/top1")


def test_artifacts_hold_the_file_and_are_of_online_runs_alone(tmp_path, caplog):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"weights")

    class Run:
        id = "abc"
        kept: ClassVar[list[wandb.Artifact]] = []

        def __init__(self, mode):
            self.settings = wandb.Settings(mode=mode)

        def log_artifact(self, artifact):
            self.kept.append(artifact)

    keep_artifact(Run("offline"), file, "model", {"run": "r"})
    assert Run.kept == []
    keep_artifact(Run("online"), file, "model", {"run": "caf\udce9"})
    (artifact,) = Run.kept
    assert (artifact.name, artifact.type) == ("model-abc", "model")
    assert artifact.metadata == {"run": "caf\\xe9"}
    assert [entry.size for entry in artifact.manifest.entries.values()] == [7]
    keep_artifact(Run("online"), tmp_path / "gone", "model", {})
    assert "W&B does not keep" in caplog.text
    assert len(Run.kept) == 1
