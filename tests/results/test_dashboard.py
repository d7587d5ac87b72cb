"""The W&B dashboard: of metrics that are really logged, and never an error without network."""

from __future__ import annotations

import json
import logging
import os
import sys
from types import SimpleNamespace

import pytest

from helpers.offline_run import read_offline_run
from helpers.rows import row
from semabench.cli import main
from semabench.results import dashboard as module
from semabench.results.wandb_log import log_evaluation, start_run

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """Nobody is logged in, and the server is one that nobody runs."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def panels(specification: dict) -> list[dict]:
    (grid,) = [b for b in specification["spec"]["blocks"] if b["type"] == "panel-grid"]
    sections = grid["metadata"]["panelBankSectionConfig"]["panels"]
    return [panel["config"] | {"kind": panel["viewType"]} for panel in sections]


def test_offline_it_writes_a_specification_of_metrics_that_runs_really_log(tmp_path, capsys):
    main(["dashboard", "mine", "--entity", "team", "--out", "spec/board.json"])
    said = capsys.readouterr().out
    assert "spec/board.json" in said
    assert "wandb login && semabench dashboard mine --entity team" in said
    specification = json.loads((tmp_path / "spec" / "board.json").read_text())
    assert specification["project"]["name"] == "mine"

    for seed in (0, 1):
        run = start_run(tmp_path / str(seed), f"run-{seed}", project="mine", name=f"s{seed}")
        rows = [
            row("sema_nano", r, seed=seed, config="7ba704ff", gmacs=0.1, peak_memory_mib=9.0)
            for r in (64, 96)
        ]
        log_evaluation(run, rows)
        run.finish()
    runs = [read_offline_run(tmp_path / str(seed)) for seed in (0, 1)]
    logged = set.union(*(set(line) for line in runs[0]["history"]))

    *lines, scatter = panels(specification)
    axes = [(line["xAxis"], *line["metrics"]) for line in lines]
    assert axes == [
        ("eval/resolution", "eval/top1"),
        ("eval/resolution", "eval/images_per_second"),
        ("eval/resolution", "eval/peak_memory_mib"),
        ("eval/gmacs", "eval/top1"),
    ]
    assert {metric for pair in axes for metric in pair} <= logged
    assert (scatter["xAxis"], scatter["yAxis"]) == (
        "summary:eval/images_per_second",
        "summary:eval/top1",
    )
    assert {"eval/images_per_second", "eval/top1"} <= set(runs[0]["summary"])
    for line in lines:
        assert (line["kind"], line["groupAgg"], line["groupArea"]) == (
            "Run History Line Plot",
            "mean",
            "stderr",
        )
        key, value = line["groupBy"].split(".")
        assert (key in runs[0]["config"], value) == (True, "value")
    # A band is over seeds: these runs share the key, another mixer's or recipe's do not.
    assert [run["config"]["series"] for run in runs] == ["sema, sema_nano, 7ba704"] * 2
    assert runs[0]["config"]["mixer"] == "sema"


def test_logged_in_without_network_it_warns_and_writes(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with caplog.at_level(logging.WARNING):
        assert "not online" in module.dashboard("mine", None, tmp_path / "board.json")
    assert "does not answer" in caplog.text
    assert (tmp_path / "board.json").exists()
    assert KEY not in (tmp_path / "board.json").read_text()


class Server:
    """What the dashboard asks of W&B, with one report of ours there already."""

    default_entity = "me"

    def __init__(self) -> None:
        self.saved: list[tuple[str, str, str]] = []

    def projects(self, entity):
        return [SimpleNamespace(name="mine")]

    def reports(self, path):
        assert path == "me/mine"
        others = SimpleNamespace(display_name="another", id="other")
        return [others, SimpleNamespace(display_name=module.TITLE, id="ours")]


def test_online_it_is_published_in_place_of_an_earlier_one(monkeypatch, tmp_path):
    from wandb_workspaces.reports import v2

    server = Server()
    monkeypatch.setattr(module, "wandb_mode", lambda _: "online")
    monkeypatch.setattr("wandb.Api", lambda: server)
    monkeypatch.setattr(
        v2.Report, "save", lambda self: server.saved.append((self.entity, self.project, self.id))
    )
    monkeypatch.setattr(v2.Report, "url", property(lambda self: f"https://server/{self.id}"))
    said = module.dashboard("mine", None, tmp_path / "board.json")
    assert said == "published: https://server/ours"
    assert server.saved == [("me", "mine", "ours")]
    assert not (tmp_path / "board.json").exists()


def test_a_server_that_fails_is_a_warning_and_a_file(monkeypatch, tmp_path, caplog):
    def fail():
        raise RuntimeError("500 from the server")

    monkeypatch.setattr(module, "wandb_mode", lambda _: "online")
    monkeypatch.setattr("wandb.Api", fail)
    with caplog.at_level(logging.WARNING):
        assert "wrote the specification" in module.dashboard("mine", None, tmp_path / "b.json")
    assert "500 from the server: not published" in caplog.text
    assert (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/b"], "no project 'a/b'"),
        ([""], "no project ''"),
        (["mine", "--entity", ""], "no entity ''"),
        (["mine", "--out", "/proc/nowhere/b.json"], "cannot write /proc/nowhere"),
        ([], "required: project"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["dashboard", *arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not list(tmp_path.glob("*.json*"))


def test_without_the_package_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(SystemExit) as stopped:
        main(["dashboard", "mine"])
    assert stopped.value.code == 2
    assert f"pip install {module.NEEDS}" in capsys.readouterr().err
