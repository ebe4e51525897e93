"""The tables of docs/metrics.md, from the catalogue."""

import re
from pathlib import Path

from exporter.metrics.catalogue import FAMILIES, INSTANCE_LABELS, WORKFLOW_LABELS, Family
from tools import ROOT
from tools.generated_sections import table, updated

PAGE = ROOT / "docs" / "metrics.md"

_SECTIONS = (
    ("Instances", "cloudflare_workflow_instance_", INSTANCE_LABELS),
    ("Workflows", "cloudflare_workflow_", WORKFLOW_LABELS),
    ("The exporter itself", "cloudflare_workflows_exporter_", ()),
)


def tables() -> str:
    """A table in Markdown for each of instances, workflows and the exporter."""
    parts, remaining = [], list(FAMILIES)
    for title, prefix, common in _SECTIONS:
        families = [
            f for f in remaining if f.name.startswith(prefix) and f.labels[: len(common)] == common
        ]
        remaining = [f for f in remaining if f not in families]
        labels = f" Labels: {_code(common)} and those named." if common else ""
        rows = [_row(family, prefix, len(common)) for family in families]
        parts.append(f"## {title}\n\n`{prefix}…`.{labels}\n")
        parts.append(table(("name", "type", "labels", "value"), rows) + "\n")
    return "\n".join(parts).rstrip()


def _row(family: Family, prefix: str, common: int) -> tuple[str, ...]:
    kind = f"{family.kind}, exemplars" if family.exemplars else family.kind
    name = family.name.removeprefix(prefix)
    # What the page says once of all.
    text = re.sub(r" As of its last [a-z ]+\.$", "", family.help)
    return f"`{name}`", kind, _code(family.labels[common:]), text


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def outputs() -> dict[Path, str]:
    """Each generated file with its content."""
    return {PAGE: updated(PAGE.read_text(encoding="utf-8"), "metrics", tables())}
