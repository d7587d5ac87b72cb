"""The tables of docs/h100.md and docs/h200.md are the committed rows."""

import re
from datetime import datetime
from itertools import product
from pathlib import Path
from statistics import median

import pytest

from semabench.evaluation.cost.views import crossings, exponents, lines, one_batch
from semabench.results import read_rows

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = {
    "sema_tiny": "SEMA-T",
    "mila_tiny": "MILA-T",
    "vmamba_tiny_s1l8": "VMamba-T s1l8",
    "vim_small": "Vim-S",
    "swin_tiny_patch4_window7_224": "Swin-T",
    "deit_small_patch16_224": "DeiT-S",
    "convnext_tiny": "ConvNeXt-T",
}
CONDITIONS = [
    ("train", 224, 128),
    ("train", 224, 256),
    ("infer", 224, 128),
    ("infer", 224, 256),
    ("infer", 512, 32),
    ("infer", 1024, 8),
]
SECTIONS = {"eager": ("**Eager**", "**Compiled**"), "compiled": ("**Compiled**", "## ")}
DEVICES = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}
JOULES_AT = [condition for condition in CONDITIONS if condition[1:] != (224, 128)]


@pytest.fixture(scope="module", params=DEVICES)
def page(request):
    return request.param


@pytest.fixture(scope="module")
def rows(page):
    return read_rows(REPOSITORY / f"results/cost-{page}.csv")


@pytest.fixture(scope="module")
def measured():
    return read_rows(REPOSITORY / "results/cost-h100.csv")


@pytest.fixture(scope="module")
def speed(measured):
    return speeds(measured)


def speeds(rows):
    """Images per second, by model, execution and condition."""
    return {
        (r.model, r.execution, r.mode, r.resolution, r.batch_size): r.images_per_second
        for r in rows
    }


def section(page, begin, end):
    text = (REPOSITORY / f"docs/{page}.md").read_text()
    return text.split(begin)[1].split(end)[0].splitlines()


def cells(lines, label):
    """A model's cells in each table: images per second, MiB, joules."""
    return [
        [cell.strip() for cell in line.split("|")[2:-1]]
        for line in lines
        if line.startswith(f"| {label} |")
    ]


def test_rows_are_of_one_device_and_complete(page, rows):
    assert {row.device for row in rows} == {DEVICES[page]}
    found = {(row.model, row.execution, row.mode, row.resolution, row.batch_size) for row in rows}
    assert found == {
        (model, execution, *condition)
        for model in LABELS
        for execution in SECTIONS
        for condition in CONDITIONS
    }
    assert len({row.key for row in rows}) == len(rows) == len(found)


def test_the_table_of_one_run_is_of_one_run(measured):
    began = [datetime.fromisoformat(row.time) for row in measured]  # when its process did
    assert (max(began) - min(began)).total_seconds() < 60
    assert len({(row.commit, row.versions) for row in measured}) == 1


@pytest.mark.parametrize("execution", SECTIONS)
def test_the_columns_are_the_conditions(page, execution):
    columns = [
        f"{mode} b{batch}" if resolution == 224 else f"{mode} {resolution} px b{batch}"
        for mode, resolution, batch in CONDITIONS
    ]
    of_joules = [columns[CONDITIONS.index(condition)] for condition in JOULES_AT]
    headers = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in section(page, *SECTIONS[execution])
        if line.startswith(("| images", "| peak", "| joules"))
    ]
    assert [header[0].split(" (")[0] for header in headers] == [
        "images per second",
        "peak memory",
        "joules per image",
    ]
    assert [header[1:] for header in headers] == [columns, columns, of_joules]


@pytest.mark.parametrize("execution", SECTIONS)
def test_the_figures_are_the_rows(page, rows, execution):
    shown = section(page, *SECTIONS[execution])
    for model, label in LABELS.items():
        measured = {
            (r.execution, r.mode, r.resolution, r.batch_size): r for r in rows if r.model == model
        }
        speeds, memory, joules = cells(shown, label)
        energy = dict(zip(JOULES_AT, joules, strict=True))
        for condition, speed, mebibytes in zip(CONDITIONS, speeds, memory, strict=True):
            row = measured[execution, *condition]
            assert f"{row.images_per_second:,.0f}" == speed.split()[0]
            spread = row.images_per_second_spread
            wide = spread > 0.02 * row.images_per_second
            assert re.findall(r"± ([\d,]+)", speed) == ([f"{spread:,.0f}"] if wide else [])
            if execution == "compiled":
                eager = measured["eager", *condition].images_per_second
                assert speed.endswith(f"({row.images_per_second / eager:.1f})")
            assert f"{row.peak_memory_mib:,.0f}" == mebibytes
            if condition in energy:
                digits = len(energy[condition].partition(".")[2])
                assert digits >= (3 if condition[1] == 224 else 1)
                assert f"{row.joules_per_image:.{digits}f}" == energy[condition]


def told(page):
    """What the text below the last table says, on one line."""
    shown = section(page, *SECTIONS["compiled"])
    return " ".join(" ".join(line for line in shown if not line.startswith("|")).split())


def inference(rows, execution):
    chosen = [row for row in rows if (row.mode, row.execution) == ("infer", execution)]
    return [line for line in one_batch(lines(chosen)) if len(line.points) > 1]


def test_the_exponents_in_the_text_are_fitted_to_the_rows(page, rows):
    fitted = {}
    for curve in inference(rows, "compiled"):
        law, _ = exponents(curve)
        fitted[re.split("[- ]", LABELS[curve.name])[0]] = f"{law.exponent:.2f} ± {law.stderr:.2f}"
    said = re.findall(r"(\d\.\d\d ± \d\.\d\d) (?:for )?([A-Z]\w+)", told(page))
    assert len(said) == {"h100": len(LABELS), "h200": 4}[page]
    assert {name: law for law, name in said}.items() <= fitted.items()


class TestTextOfTheH100:
    """What docs/h100.md says below its tables."""

    def test_the_gain_of_compiling(self, speed):
        gains = {
            (model, condition): speed[model, "compiled", *condition]
            / speed[model, "eager", *condition]
            for model, condition in product(LABELS, CONDITIONS)
        }
        ranges = []
        for batches in ({256}, {32, 8}):
            found = [gain for (_, condition), gain in gains.items() if condition[2] in batches]
            ranges.append(f"{min(found):.1f} to {max(found):.1f}")
        assert "{} times at batch 256, {} at 512 and 1024 px".format(*ranges) in told("h100")
        for condition in CONDITIONS:
            assert min(LABELS, key=lambda model: gains[model, condition]) == "vim_small"

    def test_what_waits_for_the_host(self, measured, speed):
        wide = [r for r in measured if r.images_per_second_spread > 0.02 * r.images_per_second]
        assert {row.batch_size for row in wide} == {128}
        rise = {k[:3]: speed[*k[:-1], 256] / speed[k] for k in speed if k[-1] == 128}
        vmamba = rise.pop(("vmamba_tiny_s1l8", "compiled", "infer"))
        training = [
            rise.pop((model, execution, "train"))
            for execution, model in product(SECTIONS, ("sema_tiny", "mila_tiny"))
        ]
        text = told("h100")
        assert f"is {vmamba:.2f} times as fast at 256" in text
        assert "{:.2f} and {:.2f} times (".format(*training[:2]) in text
        assert "compiled {:.2f} and {:.2f};".format(*training[2:]) in text
        assert f"every other row at most {max(rise.values()):.2f}." in text

    def test_the_crossings(self, measured):
        found = {
            execution: {
                frozenset(LABELS[line.name] for line in pair): (found.clear, found.resolution)
                for *pair, found in crossings(inference(measured, execution))
            }
            for execution in SECTIONS
        }
        pairs = [
            frozenset(pair)
            for pair in (
                ("SEMA-T", "VMamba-T s1l8"),
                ("SEMA-T", "MILA-T"),
                ("DeiT-S", "ConvNeXt-T"),
            )
        ]
        assert set(found["compiled"]) == set(pairs)
        assert set(found["eager"]) == set(pairs[:1])
        assert all(clear for each in found.values() for clear, _ in each.values())
        at = [round(found["compiled"][pair][1]) for pair in pairs]
        at.append(round(found["eager"][pairs[0]][1]))
        text = told("h100")
        assert "VMamba at {} px and MILA at {}. DeiT crosses ConvNeXt at {}".format(*at) in text
        assert f"with VMamba, at {at[3]}." in text

    def test_the_speed_beside_the_h200s(self, speed):
        other = speeds(read_rows(REPOSITORY / "results/cost-h200.csv"))
        ratios = {key: speed[key] / other[key] for key in speed}
        host = [ratio for key, ratio in ratios.items() if key[-1] == 128]
        gpu = {key: ratio for key, ratio in ratios.items() if key[-1] != 128}
        ascending = sorted(gpu, key=lambda key: gpu[key])
        assert ascending[0] == ("mila_tiny", "compiled", "infer", 224, 256)
        low, second, *_, high = (f"{gpu[key]:.2f}" for key in ascending)
        text = told("h100")
        assert f"the {len(gpu)} conditions that are not at batch 128" in text
        assert f"{low} to {high} of the speed, at {median(gpu.values()):.2f} in" in text
        assert f"The {low} is MILA-T's compiled inference at 256, the next is {second}." in text
        assert f"at 128 run at {min(host):.2f} to {max(host):.2f}." in text

    def test_the_power(self, measured):
        away = [row for row in measured if row.batch_size != 128]
        spread = max(row.joules_per_image_spread / row.joules_per_image for row in away)
        watts = {row.joules_per_image * row.images_per_second: row.model for row in away}
        low, high = min(watts), max(watts)
        assert (watts[low], watts[high]) == ("vim_small", "deit_small_patch16_224")
        text = told("h100")
        assert f"spread is at most {spread:.1%}".replace("%", " %") in text
        assert f"They make {low:.0f} (Vim) to {high:.0f} W (DeiT)" in text
