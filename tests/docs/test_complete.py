"""Nothing that people can set, see or meet is without documentation."""

import ast
import itertools
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from exporter import cli
from exporter.cloudflare.errors import FAILURE_REASONS
from exporter.config import accounts, environment, flags
from exporter.config.settings import leaves
from exporter.metrics.catalogue import FAMILIES
from tests.docs.pages import PAGES
from tools import CHART, ROOT, chart_files

CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
README = (ROOT / "README.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text()
SOURCES = sorted((ROOT / "exporter").rglob("*.py"))


class TestSettings:
    @pytest.mark.parametrize("loc", [loc for loc, _ in leaves()], ids=".".join)
    def test_a_key_has_its_flag_and_variable_in_the_reference(self, loc: tuple[str, ...]) -> None:
        (row,) = (x for x in CONFIGURATION.splitlines() if x.startswith(f"| `{'.'.join(loc)}` |"))
        _, _, flag, variable, default, meaning, _ = re.split(r"(?<!\\)\|", row)
        assert flag.strip().startswith(f"`{flags.name(loc)}=")
        assert variable.strip() == f"`{environment.variable(loc)}`"
        assert len(default.strip()) > 2
        assert len(meaning.strip()) > 8

    def test_every_flag_of_the_command_is_in_the_reference(self) -> None:
        for flag in re.findall(r"^  (--[a-z.-]+)", cli.parser().format_help(), re.MULTILINE):
            assert f"`{flag}" in CONFIGURATION, flag

    def test_a_key_of_a_list_is_in_the_reference(self) -> None:
        for path in (
            "accounts[].account_id",
            "accounts[].workflows[].instances",
            "accounts[].workflows[].discover.max_age",
            "metrics.step_names.rewrite[].regex",
        ):
            assert f"| `{path}` |" in CONFIGURATION

    @pytest.mark.parametrize(
        "name",
        [
            accounts.ENV_TOKEN,
            accounts.ENV_EMAIL,
            accounts.ENV_KEY,
            *sorted(
                {
                    name
                    for path in SOURCES
                    for name in re.findall(
                        r"\b(?:CWE_CONFIG__FILE|SSL_CERT_[A-Z]+|[A-Z]+_PROXY)\b", path.read_text()
                    )
                }
            ),
        ],
    )
    def test_a_variable_that_is_no_setting_is_in_the_reference(self, name: str) -> None:
        assert f"`{name}`" in CONFIGURATION


class TestMetrics:
    def test_each_is_in_the_reference(self) -> None:
        page = (ROOT / "docs" / "metrics.md").read_text()
        prefixes = re.findall(r"^`(\w+)…`", page, re.MULTILINE)
        names = {p + n for p in prefixes for n in re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)}
        assert {family.name for family in FAMILIES} <= names


class TestEndpoints:
    def test_each_is_in_the_reference(self) -> None:
        routes = {
            route
            for path in (ROOT / "exporter" / "web").rglob("*.py")
            for route in re.findall(r'\bRoute\(\s*"([^"]+)"', path.read_text())
        }
        assert {"/metrics", "/-/healthy", "/-/ready", "/"} <= routes
        rows = re.findall(r"^\| `(?:[A-Z]+ )?(/\S*)`", OPERATING, re.MULTILINE)
        assert routes - set(rows) == set()


class TestMake:
    def test_each_target_that_a_page_names_is_there(self) -> None:
        pages = [*PAGES, ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md"]
        named = {
            target for page in pages for target in re.findall(r"`make ([a-z-]+)", page.read_text())
        }
        makefile = (ROOT / "Makefile").read_text()
        targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
        assert len(named) > 4
        assert named - targets == set()

    def test_the_tests_that_a_page_picks_are_there(self) -> None:
        page = (ROOT / "CONTRIBUTING.md").read_text()
        [(folder, word)] = re.findall(r'PYTEST_ARGS="(\S+) -k (\w+)"', page)
        files = (ROOT / folder).glob("test_*.py")
        assert any(re.search(rf"def test_\w*{word}", file.read_text()) for file in files)


class TestMarks:
    def test_each_is_in_the_guide_for_contributors(self) -> None:
        options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
        marks = {re.split(r"\W", mark)[0] for mark in options["ini_options"]["markers"]}
        page = (ROOT / "CONTRIBUTING.md").read_text()
        assert set(re.findall(r"^- `(\w+)`: it ", page, re.MULTILINE)) == marks


class TestBenchmarks:
    def test_each_is_in_the_guide_for_contributors(self) -> None:
        scripts = {
            path.stem
            for path in (ROOT / "benchmarks").glob("*.py")
            if '__name__ == "__main__"' in path.read_text()
        }
        page = (ROOT / "CONTRIBUTING.md").read_text()
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
        assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == scripts

    def test_each_that_a_page_names_is_there(self) -> None:
        named = {
            name
            for page in PAGES
            for name in re.findall(r"python -m\s+benchmarks\.(\w+)", page.read_text())
        }
        files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
        assert named - files == set()


class TestTheChart:
    def test_each_value_is_in_its_readme(self) -> None:
        page = (CHART / "README.md").read_text()
        for value in chart_files.values():
            assert f"| `{value.path}` |" in page


@cache
def _logged(*levels: str) -> frozenset[str]:
    """The messages that the exporter logs at these levels."""
    return frozenset(_messages(levels))


def _messages(levels: tuple[str, ...]) -> Iterator[str]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            holder = ast.unparse(node.func.value)
            if holder not in ("log", "self._log") or node.func.attr not in levels:
                continue
            yield from _texts(node.args[1 if node.func.attr == "log" else 0])


def _texts(node: ast.expr) -> list[str]:
    """What an expression may say: `"a"`, `"a" if x else "b"`, `f"a {'b' if x else 'c'}"`."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp():
            return _texts(node.body) + _texts(node.orelse)
        case ast.JoinedStr():
            parts = [_texts(part) for part in node.values]
            return ["".join(combination) for combination in itertools.product(*parts)]
        case ast.FormattedValue():
            return _texts(node.value)
        case _:
            raise AssertionError(f"not a message that the docs can quote: {ast.unparse(node)}")


class TestTroubleshooting:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_every_line_that_a_page_quotes_is_one_that_is_logged(self, page: Path) -> None:
        text = " ".join(page.read_text().split())
        quoted = set(re.findall(r"\blog: `([^`]+)`", text))
        assert len(quoted) > 20 or page.name != "troubleshooting.md"
        assert quoted - _logged("info", "warning", "error", "exception", "log") == set()

    @pytest.mark.slow
    def test_every_warning_and_error_is_in_it(self) -> None:
        logged = _logged("warning", "error", "exception")
        assert len(logged) > 10
        assert {line for line in logged if f"`{line}`" not in TROUBLESHOOTING} == set()

    def test_each_class_of_failure_is_explained(self) -> None:
        rows = re.findall(r"^\| (`[^|]+) \|", TROUBLESHOOTING, re.MULTILINE)
        explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert set(FAILURE_REASONS) - explained == set()

    def test_its_metrics_are_those_that_there_are(self) -> None:
        named = set(re.findall(r"`(cloudflare_\w+)`", TROUBLESHOOTING))
        assert named - {family.name for family in FAMILIES} == set()


class TestLinks:
    def test_every_page_of_docs_is_in_the_readme_s_index(self) -> None:
        for page in (ROOT / "docs").glob("*.md"):
            assert f"](docs/{page.name})" in README, page.name
        for page in ROOT.glob("*.md"):
            assert page.name == "README.md" or f"]({page.name})" in README, page.name

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_none_is_dead(self, page: Path) -> None:
        links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())
        dead = []
        for link in links:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists() or (anchor and anchor not in _anchors(target)):
                dead.append(link)
        assert dead == []


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
