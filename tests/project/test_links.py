"""Links of the documents to files and headings of the repository lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


def prose(text: str) -> str:
    """A document without blocks of code and code in lines."""
    text = re.sub(r"^(```+).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(`+)[^`].*?\1", "`", text)


def targets(text: str) -> Iterator[str]:
    """What the links and images of a document lead to."""
    text = prose(text)
    yield from re.findall(r"\]\(\s*<?([^\s()<>]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    yield from re.findall(r"^\s*\[[^\]]+\]:\s*<?([^\s<>]+)", text, flags=re.MULTILINE)
    yield from re.findall(r"\b(?:src|href)=[\"']([^\"']+)", text)


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a document."""
    found: set[str] = set()
    without = re.sub(r"^(```+).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", without, flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        times = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", one) is not None for one in found)
        found.add(f"{name}-{times}" if times else name)
    return found


def broken(document: Path, text: str) -> list[str]:
    """The links of a document that lead nowhere."""
    found = []
    for target in targets(text):
        if ELSEWHERE.match(target):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = document.parent / name if name else document
        if not path.exists():
            found.append(target)
        elif anchor and path.suffix == ".md":
            content = text if path == document else path.read_text("utf-8")
            if anchor not in anchors(content):
                found.append(target)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    assert broken(document, document.read_text("utf-8")) == []


def test_links_are_found() -> None:
    """The test above sees links of every kind, and those that lead nowhere."""
    text = (
        "# One *two*, `three`\n## Twice\n## Twice\n[a](README.md) ![b](none.png) [c](#twice-1) [d](#twice-2)\n"
        "[e](#one-two-three) [f](README.md#no-such-heading) [g](https://a.b/c) `[h](code.md)` [i](<docs>)\n"
        '<img src="no.webp"> [j]\n\n[j]: gone.md\n```\n[k](block.md)\n```\n'
    )
    assert broken(ROOT / "CHANGELOG.md", text) == [
        "none.png", "#twice-2", "README.md#no-such-heading", "gone.md", "no.webp"
    ]  # fmt: skip
    counts = {path.name: len(list(targets(path.read_text("utf-8")))) for path in DOCUMENTS}
    assert counts["README.md"] > 10 and sum(counts.values()) > 30, counts
