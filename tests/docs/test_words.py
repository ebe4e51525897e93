"""Pages and code use one word for one thing, and the field's own (docs/glossary.md)."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES
from tools import ROOT

OURS = [*PAGES, ROOT / "config.example.yaml", ROOT / "web.example.yaml"]
# What the first version said, and what it is called.
WORDS = {
    r"sweeps?": "list pass",
    r"anew": "again, re-read",
    r"seldom": "throttle",
    r"mend": "fix",
    r"mistakes?": "error",
    r"troubles?": "problem",
    r"go(?:es)? on": "continue",
    r"behind its plan": "overdue by",
    r"figures?": "metrics, values",
    r"looks? at": "poll, check",
    r"(?:API|full|simple) calls?": "request",
    r"(?:full|simple|large) answers?": "response",
    r"is no key": "unknown key",
}
# Those that names, comments and texts of programs have no other use for.
NOT_IN_CODE = (
    r"sweeps?|anew|seldom|mends?|mistakes?|troubles?|go(?:es)?[ _]on|figures?|ears?|heard|told"
)
FOLDERS = [
    "exporter",
    "alerts",
    "helm",
    "grafana",
    "deploy",
    "simulator",
    "demo",
    "benchmarks",
    "tests",
]
CODE = {".py", ".yaml", ".tpl", ".txt", ".html", ".js", ".mjs", ".css"}


@pytest.mark.parametrize("page", OURS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_no_private_words(page: Path) -> None:
    prose = re.sub(r"`[^`\n]+`", "", page.read_text())
    found = re.findall(rf"\b({'|'.join(WORDS)})\b", prose)
    assert found == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_code_has_no_private_words(folder: str) -> None:
    pattern = re.compile(rf"(?<![a-z])(?:{NOT_IN_CODE})(?![a-z])", re.IGNORECASE)
    found = [
        f"{file.relative_to(ROOT)}: {word}"
        for file in (ROOT / folder).rglob("*")
        if file.suffix in CODE and not {"node_modules", ".cache"} & set(file.parts)
        for word in pattern.findall(file.read_text())
        if file != Path(__file__)
    ]
    assert found == []


def test_the_glossary_is_in_order() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    words = [w.strip() for w in re.findall(r"^\| ([a-z][a-z, ]*)", text, re.MULTILINE)[1:]]
    assert len(words) > 30
    assert words == sorted(words)
