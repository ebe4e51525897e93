"""The tables of docs/configuration.md, from the settings: every flag, key and variable."""

import argparse
from pathlib import Path

from pydantic.fields import FieldInfo

from exporter import cli
from exporter.config import environment, flags
from exporter.config.settings import Settings, leaves, paths
from tools import ROOT
from tools.generated_sections import table, updated

PAGE = ROOT / "docs" / "configuration.md"


def modes() -> str:
    """The flags of the command itself."""
    settings = {".".join(key) for key, _ in leaves()}
    actions = [a for a in cli.parser()._actions if a.dest not in settings]
    return table(("flag", "meaning"), ((_flag(action), action.help or "") for action in actions))


def _flag(action: argparse.Action) -> str:
    value = f"={action.metavar}" if action.metavar else ""
    return f"`{action.option_strings[-1]}{value}`"


def keys() -> str:
    """The keys that are also flags and variables, in a table for each section."""
    parts = []
    for name, section in Settings.model_fields.items():
        rows = [
            (
                f"`{'.'.join(key)}`",
                f"`{flags.name(key)}={flags.takes(key, field)}`",
                f"`{environment.variable(key)}`",
                _default(field),
                _meaning(key, field),
            )
            for key, field in leaves()
            if key[0] == name
        ]
        parts.append(f"### {name}\n\n{section.description}.\n")
        parts.append(table(("key", "flag", "environment", "default", "meaning"), rows) + "\n")
    return "\n".join(parts).rstrip()


def _meaning(key: tuple[str, ...], field: FieldInfo) -> str:
    if len(key) < 3:
        return field.description or ""
    # A key of a section within a section: its description comes first.
    return f"{dict(paths(Settings))['.'.join(key[:-1])].description} {field.description}"


def lists() -> str:
    """The keys of elements of lists: accounts, their workflows, rules."""
    rows = [
        (f"`{path}`", _default(field), field.description or "")
        for path, field in paths(Settings)
        if "[]" in path
    ]
    return table(("key", "default", "meaning"), rows)


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else f"`{flags.shown(field.default)}`"


def outputs() -> dict[Path, str]:
    """Each generated file with its content."""
    page = PAGE.read_text(encoding="utf-8")
    for section, text in (("modes", modes()), ("keys", keys()), ("lists", lists())):
        page = updated(page, section, text)
    return {PAGE: page}
