"""config.example.yaml shows every setting with its default."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from exporter.config import flags
from exporter.config import load as config
from exporter.config.accounts import Account, Discover, Workflow
from exporter.config.metrics import Rewrite
from exporter.config.settings import leaves

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
TEXT = EXAMPLE.read_text()
CONTENT: dict[str, Any] = msgspec.yaml.decode(TEXT)
DEFAULTS = [(loc, field.default) for loc, field in leaves() if loc != ("accounts",)]


def test_it_loads(no_environment: None) -> None:
    settings = config.load(EXAMPLE, {}, os.environ)
    assert [account.label for account in settings.accounts] == ["production"]


@pytest.mark.parametrize(("loc", "default"), DEFAULTS, ids=[".".join(loc) for loc, _ in DEFAULTS])
def test_a_key_is_shown_with_its_default(
    loc: tuple[str, ...], default: object, no_environment: None
) -> None:
    shown: Any = CONTENT
    for part in loc:
        shown = shown[part]
    loaded: Any = config.load(EXAMPLE, {}, os.environ)
    for part in loc:
        loaded = getattr(loaded, part)
    assert loaded == default
    assert shown == (flags.shown(default) if isinstance(shown, str) else default)


def test_nothing_else_is_shown() -> None:
    def paths(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found = set()
        for key, value in tree.items():
            is_section = isinstance(value, dict)
            found |= paths(value, (*prefix, key)) if is_section else {(*prefix, key)}
        return found

    assert paths(CONTENT) == {loc for loc, _ in leaves()}


@pytest.mark.parametrize("model", [Account, Workflow, Discover, Rewrite])
def test_every_key_of_lists_is_shown_or_commented(model: type[BaseModel]) -> None:
    lines = [line.strip().lstrip("#- ") for line in TEXT.splitlines()]
    for key in model.model_fields:
        assert any(line.startswith(f"{key}:") for line in lines), key


def test_discovery_is_shown_with_its_defaults(no_environment: None) -> None:
    workflows = config.load(EXAMPLE, {}, os.environ).accounts[0].workflows
    assert workflows[1].discover == workflows[2].discover == Discover()


def test_every_key_has_a_comment() -> None:
    lines = [line.strip() for line in TEXT.splitlines()]
    for key in {loc[-1] for loc, _ in leaves()}:
        places = [i for i, line in enumerate(lines) if line.startswith(f"{key}:")]
        assert any(lines[index - 1].startswith("#") for index in places), key
