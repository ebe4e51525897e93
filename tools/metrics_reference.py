"""The reference of all metrics, made from the catalogue.

`python -m tools.metrics_reference` (`make docs`) writes it into the files that hold it, between
two comments. A test fails when one is out of date.
"""

import re
import sys
from pathlib import Path

from exporter.metrics.catalogue import FAMILIES, INSTANCE_LABELS, WORKFLOW_LABELS, Family

FILES = (Path("docs/metrics.md"),)

_BEGIN, _END = "<!-- metrics: made by make docs -->", "<!-- end of metrics -->"
_SECTIONS = (
    ("Instances", "cloudflare_workflow_instance_", INSTANCE_LABELS),
    ("Workflows", "cloudflare_workflow_", WORKFLOW_LABELS),
    ("The exporter itself", "cloudflare_workflows_exporter_", ()),
)


def tables() -> str:
    """All metrics in Markdown: a table for instances, workflows and the exporter each."""
    parts, left = [], list(FAMILIES)
    for title, prefix, common in _SECTIONS:
        rows = [f for f in left if f.name.startswith(prefix) and f.labels[: len(common)] == common]
        left = [f for f in left if f not in rows]
        labels = f" Labels: {_code(common)} and those named." if common else ""
        parts.append(f"## {title}\n\n`{prefix}…`.{labels}\n")
        parts.append("| name | type | labels | value |\n| --- | --- | --- | --- |")
        parts += [_row(f, prefix, len(common)) for f in rows]
        parts.append("")
    return "\n".join(parts)


def _row(family: Family, prefix: str, common: int) -> str:
    name, labels = family.name.removeprefix(prefix), _code(family.labels[common:])
    text = family.help.replace("|", "\\|")
    kind = f"{family.kind}, exemplars" if family.exemplars else family.kind
    return f"| `{name}` | {kind} | {labels} | {text} |"


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def updated(text: str) -> str:
    """`text` with what stands between the two comments generated again."""
    pattern = re.compile(f"(?<={re.escape(_BEGIN)}\n).*?(?={re.escape(_END)})", re.DOTALL)
    return pattern.sub(lambda _: f"\n{tables()}\n", text)


def main() -> int:
    for path in FILES:
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
