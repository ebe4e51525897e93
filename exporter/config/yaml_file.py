"""Reads a YAML file. Errors say where it is wrong, but don't show what it holds."""

import re
from pathlib import Path
from typing import Any

import yaml

from exporter.config.errors import ConfigError
from exporter.config.files import read_file

_HINTS = {
    r"'\\t'": "indent with spaces",
    "alias|anchor|tag|cannot start any token|unhashable key": (
        "put text that begins with one of @ * & ! { [ in quotes"
    ),
    "another document": "only one is expected",
    "<block end>|<document start>|mapping values|expected ':'": (
        "check indentation, quotes and the space after each colon, here and in the lines above"
    ),
}
"""What to do about an error, by a pattern in PyYAML's message."""
_ODD_SPACE = re.compile(r"^[ -]*(?:\w+:)?[^\S \t\r\n]", re.MULTILINE)
"""Before or after a key; YAML takes it for a letter."""
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")  # as `repr` does


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, which YAML forbids and PyYAML accepts.

    Dates stay text: `2026-11-24` can be the id of an instance.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem="duplicate key", problem_mark=key_node.start_mark
                    )
                seen.add(key_node.value)
        return node


def read(path: Path, *, keys: str = "accounts and poll", pipe: bool = False) -> dict[str, Any]:
    """The mapping that a file holds; empty for an empty file.

    Args:
        path: The file.
        keys: Examples of keys that it may have, for error messages.
        pipe: Whether it may be a pipe, which can only be read once.

    Raises:
        ConfigError: the file can't be read, isn't YAML, or holds something else.
    """
    try:
        data = path.read_bytes() if pipe else read_file(path)
        text = data.decode("utf-8-sig")
        if odd := _ODD_SPACE.search(text):
            number = text.count("\n", 0, odd.end()) + 1
            what = f"line {number}: has a no-break space, or a similar one"
            raise ConfigError(f"{path}: {what}; type a plain space")
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {number}: not UTF-8; save it in that encoding") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}: {_place(error)}not valid YAML: {_problem(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{error.character:04X}"
        raise ConfigError(f"{path}: line {line}: not valid YAML: {what} is not allowed") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except ValueError:
        # A value doesn't fit its tag, such as !!int; the cause would show the value.
        raise ConfigError(f"{path}: not valid YAML: a value doesn't fit its tag (!!)") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: must be a mapping with keys such as {keys}")
    return content


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = _QUOTED.sub(_hidden, (error.problem or "").removeprefix("but "))
    about = f"{error.context} {problem}"
    hint = next((f"; {hint}" for part, hint in _HINTS.items() if re.search(part, about)), "")
    return problem + _beginning(error) + hint


def _beginning(error: yaml.MarkedYAMLError) -> str:
    """Where an unfinished quoted text, {…} or […] begins, which may be far above the error."""
    began, noticed = error.context_mark, error.problem_mark
    if not began or not noticed or began.line == noticed.line or "block" in (error.context or ""):
        return ""
    return f", in what begins in line {began.line + 1}"


def _hidden(match: re.Match[str]) -> str:
    """Hides quoted words, which come from the file and may be secret, but not single characters and
    marks."""
    return match[0] if len(match[0]) < 4 or match[0][1] in "\\<" else "…"
