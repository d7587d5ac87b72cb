"""The cache of tables: bounded, and never full of tensors that autograd refuses."""

import torch

from semabench.ops import tables
from semabench.ops.tables import cached_table


def test_caches_and_forgets():
    built = []

    @cached_table(2)
    def table(n: int) -> torch.Tensor:
        built.append(n)
        return torch.arange(n)

    first = table(1)
    assert table(1) is first
    table(2)
    table(3)
    assert built == [1, 2, 3]
    assert table(1) is not first  # pushed out by 3
    assert built == [1, 2, 3, 1]


def test_tables_are_ordinary_tensors_even_in_inference_mode():
    table = cached_table(2)(lambda n: torch.ones(n))
    with torch.inference_mode():
        assert not table(3).is_inference()


def test_compiled_code_builds_its_own():
    table = cached_table(2)(lambda n: torch.arange(n))
    compiled = torch.compile(lambda x: x + table(len(x)), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(torch.ones(3)), torch.tensor([1.0, 2.0, 3.0]))


def test_triton_needs_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert tables.missing_for_triton() == "a C compiler (gcc, clang or CC)"
    (tmp_path / "gcc").write_text("")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setattr(tables.sysconfig, "get_path", lambda name: tmp_path)
    assert tables.missing_for_triton() == "Python's headers (python3-dev)"
    (tmp_path / "Python.h").write_text("")
    assert tables.missing_for_triton() == ""
    monkeypatch.setenv("CC", "/nowhere/cc")  # which Triton takes unseen
    assert tables.missing_for_triton() == "a C compiler (gcc, clang or CC)"
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    assert tables.missing_for_triton() == "the package triton"
