import re

from semabench.results.record import git_commit, software_versions


def test_versions_are_short_and_whole():
    assert re.fullmatch(r"torch \S+, timm \S+, semabench \d+\.\d+\.\d+", software_versions())


def test_commit_is_a_hash_or_nothing():
    assert re.fullmatch(r"([0-9a-f]{12}\+?)?", git_commit())
