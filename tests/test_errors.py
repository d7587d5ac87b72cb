"""Errors are one line, and name what may have been meant."""

from semabench.errors import first_line, nearest


def test_nearest_suggests_or_lists():
    assert nearest("widow_size", ["window_size", "shift"]) == " Did you mean 'window_size'?"
    assert nearest("qqq", ["b", "a"]) == " Choose one of: a, b."


def test_an_error_is_told_by_its_first_line_or_its_type():
    assert first_line(ValueError("\n no such thing\n  at all")) == "no such thing"
    assert first_line(MemoryError()) == "MemoryError"
