"""Hooks of mkdocs: pages from elsewhere in the repository, and the files that pages link to.

The README, the change log and others become pages beside docs/*.md; the page of commands is what
``semabench --help`` prints. A link that leads out of docs/ leads to a copy of that file; one to a
folder becomes plain text, since a folder has no page.
"""

from __future__ import annotations

import argparse
import io
import posixpath
import re
from contextlib import redirect_stdout
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "slurm.md": "slurm/README.md",
}
_PAGE_OF = {f"docs/{p.name}": p.name for p in (ROOT / "docs").glob("*.md")}
_PAGE_OF |= {source: page for page, source in PAGES.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, and copies of the files that pages link to."""
    linked: set[str] = set()
    for page, source in PAGES.items():
        text = _relinked((ROOT / source).read_text(), source, linked)
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "commands.md", content=_commands()))
    for path in sorted((ROOT / "docs").glob("*.md")):
        _relinked(path.read_text(), f"docs/{path.name}", linked)
    for path in sorted(linked):
        files.append(File.generated(config, f"source/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of docs/*.md out of docs/ to the copies."""
    source = f"docs/{page.file.src_uri}"  # type: ignore[attr-defined]
    return _relinked(markdown, source, set()) if (ROOT / source).is_file() else markdown


def _relinked(markdown: str, source: str, linked: set[str]) -> str:
    """Return a page with links for the site; ``linked`` gets the files that must be copied."""

    def lead(match: re.Match[str]) -> str:
        image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in _PAGE_OF:
            return f"{image}[{text}]({_PAGE_OF[path]}{anchor})"
        if path.startswith("docs/"):
            return f"{image}[{text}]({path.removeprefix('docs/')}{anchor})"
        if (ROOT / path).is_dir():
            return text
        if (ROOT / path).is_file():
            linked.add(path)
            path = f"source/{path}"
        return f"{image}[{text}]({path}{anchor})"  # one that leads nowhere is mkdocs' to tell

    return _LINK.sub(lead, markdown)


def _commands() -> str:
    """Return what ``--help`` of each command prints."""
    from semabench import cli

    parts = ["# Commands\n"]
    for words, parser in _parsers(cli._parser(), ("semabench",)):
        told = io.StringIO()
        with redirect_stdout(told):
            parser.print_help()
        parts.append(f"## {' '.join(words)}\n\n```text\n{told.getvalue().rstrip()}\n```\n")
    return "\n".join(parts)


def _parsers(
    parser: argparse.ArgumentParser, words: tuple[str, ...]
) -> list[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    found = [(words, parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found += _parsers(below, (*words, name))
    return found
