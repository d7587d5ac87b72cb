"""What the README and the experiments tell a user to type is valid; its example mixer trains."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from helpers.configs import composed
from semabench import cli
from semabench.config.schema import TrainConfig, to_config
from semabench.measures import measure_of

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
EXPERIMENTS = sorted((REPOSITORY / "conf" / "experiment").glob("*.yaml"))


def commands(text: str, program: str) -> list[list[str]]:
    """All uses of a program in code blocks, inline code and comments, split as a shell does."""
    text = re.sub(r"\\\n\s*", "", text)
    before = r"(?:^|[`#] ?|&& )\s*"
    found = re.findall(rf"{before}((?:[\w./ -]+ )?{program} [^`\n]+)", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found if "…" not in line]


def overrides(words: list[str], app: str) -> list[str]:
    return [word for word in words[words.index(app) + 1 :] if "=" in word]


def single(override: str) -> str:
    """One job of a sweep: `a=1,2` becomes `a=1`."""
    key, value = override.split("=", 1)
    return override if value.startswith("[") else f"{key}={value.split(',')[0]}"


EVALUATIONS = {
    "README.md": README,
    "cost.md": (REPOSITORY / "docs" / "cost.md").read_text(),
    "dispersion.md": (REPOSITORY / "docs" / "dispersion.md").read_text(),
    "dispersion.yaml": (REPOSITORY / "conf/measure/dispersion.yaml").read_text(),
    "study.md": (REPOSITORY / "docs" / "study.md").read_text(),
    **{p.name: p.read_text() for p in (REPOSITORY / "conf" / "measure").glob("study*.yaml")},
    "cost_baselines.yaml": (REPOSITORY / "conf/measure/cost_baselines.yaml").read_text(),
}
TEXTS = {
    "README.md": README,
    **{
        f"{name}.md": (REPOSITORY / "docs" / f"{name}.md").read_text()
        for name in ("dispersion", "report", "study", "sweeps", "training")
    },
    **{p.name: p.read_text() for p in EXPERIMENTS},
}


@pytest.mark.parametrize("source", TEXTS)
def test_train_commands_compose(source):
    found = commands(TEXTS[source], r"train\.py")
    assert found
    for words in found:
        if any("GROUP" in word for word in words):
            continue
        given = [single(o) for o in overrides(words, "train.py") if "hydra" not in o.split("=")[0]]
        if any(o.startswith("model.mixer=maximum") for o in given):
            continue  # the example's own mixer
        to_config(composed("train", given), TrainConfig)


@pytest.mark.parametrize("source", EVALUATIONS)
def test_eval_commands_compose(source):
    found = commands(EVALUATIONS[source], r"eval\.py")
    assert found
    for words in found:
        asked = composed("eval", overrides(words, "eval.py"))
        measure = measure_of(asked)
        measure.check(to_config(asked, measure.schema))


@pytest.mark.parametrize("source", TEXTS)
def test_semabench_commands_parse(source):
    found = commands(TEXTS[source], "semabench (?:data|report|dashboard|models|tables|config)")
    assert found or source in ("imagenet.yaml", "diagnostics.yaml", "training.md")
    for words in found:
        parsed, extra = cli._parser().parse_known_args(words[words.index("semabench") + 1 :])
        assert extra == [], words
        assert callable(parsed.command)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_is_named_in_the_readme_and_by_itself(path):
    assert f"`{path.stem}`" in README
    assert f"experiment={path.stem}" in path.read_text()


@pytest.mark.parametrize("target", re.findall(r"make (\w+)", README))
def test_make_targets_exist(target):
    done = subprocess.run(
        ["make", "-n", target, "PYTHON=python3"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_example_mixer_works_in_a_model():
    from semabench.mixers import base as registry

    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert code.count("\n") <= 20
    before = dict(registry._MIXERS)
    try:
        exec(compile(code, "README.md", "exec"), {"__name__": "maximum"})
        from semabench.models import build_model

        model = build_model("sema_nano", num_classes=3, resolution=32, mixer="maximum", options={})
        assert model(torch.randn(2, 3, 40, 56)).shape == (2, 3)
    finally:
        registry._MIXERS.clear()
        registry._MIXERS.update(before)


def test_no_placeholder_is_left_and_every_link_leads_somewhere():
    assert not re.findall(r"\bDEMO_\w+", README)
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", README)
    assert len(links) > 5
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


DOCS = sorted((REPOSITORY / "docs").glob("*.md"))


PAGES = [
    *DOCS,
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "slurm/README.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_every_link_of_the_docs_leads_somewhere(page):
    links = re.findall(r"\]\((?!http)([^)#]*)(#[^)]*)?\)", page.read_text())
    for path, anchor in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor[1:] in [
                re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings
            ]


def test_the_docs_are_short():
    """For someone in a hurry; keys.md is generated."""
    assert len(README.split()) <= 1500
    assert sum(len(p.read_text().split()) for p in DOCS if p.name != "keys.md") <= 8000


def test_the_page_of_keys_is_what_the_command_prints(capsys):
    cli.main(["config"])
    printed = capsys.readouterr().out
    assert (REPOSITORY / "docs/keys.md").read_text().endswith(printed)


@pytest.mark.parametrize(
    "page", [p for p in DOCS if "<!-- tables results/" in p.read_text()], ids=lambda p: p.name
)
def test_tables_of_committed_rows_are_what_the_command_prints(page, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    copied = tmp_path / page.name
    copied.write_text(page.read_text())
    cli.main(["tables", str(copied)])
    assert copied.read_text() == page.read_text()
