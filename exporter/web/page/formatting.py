"""Times, durations, links and queries as people read them."""

from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from exporter.metrics import catalogue
from exporter.web.page.view import Explanation, InstanceRow

NONE = "\N{EN DASH}"
# Units with their seconds, each with the smaller one that is told along.
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
_FIGURES = {
    "status": "status",
    "version_id": "version",
    "trigger": "trigger",
    "error_name": "error",
    "error_step": "failing step",
    "step_count": "step count",
    "steps": "steps by outcome",
    "attempts": "attempts by outcome",
    "retries": "retries",
    "open_steps": "open steps",
    "queued": "a new run",
    "start": "start",
    "end": "end",
    "queue_duration": "queue duration",
    "run_duration": "run duration",
}
# What the first full answer tells, and no row as well.
_KNOWN_WITH_STEPS = frozenset(
    {"step_count", "steps", "attempts", "retries", "queued", "queue_duration"}
)
_TOLD_BEFORE = frozenset({"status", "error_name", "error_step", "step_count", "retries"})


def span(seconds: float | None) -> str:
    """A duration: `0.25s`, `12s`, `3m 20s`, `4h 5m`, `3d 4h`."""
    if seconds is None:
        return NONE
    if 0 < seconds < 10:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    whole = int(seconds)
    for unit, name, smaller, smaller_name in _UNITS:
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit}{name}" + (f" {rest}{smaller_name}" if rest else "")
    return f"{whole}s"


def ago(moment: float | None, now: float) -> str:
    """How long ago, or in how long."""
    if moment is None:
        return NONE
    seconds = round(now - moment)
    if seconds == 0:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def utc(moment: float) -> str:
    """`2026-11-24 22:49:44 UTC`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(moment: float) -> str:
    """For the attribute `datetime` of an element `time`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instance_href(row: InstanceRow) -> str:
    """The address of an instance's page, relative to the table's."""
    return "instance?" + urlencode({"account": row.account, "workflow": row.workflow, "id": row.id})


def dashboard_href(known: Explanation) -> str:
    """The instance in Cloudflare's dashboard; empty where the account has no id."""
    if not known.account_id:
        return ""
    return (
        f"https://dash.cloudflare.com/{quote(known.account_id, safe='')}/workers/workflows/"
        f"{quote(known.row.workflow, safe='')}/instance/{quote(known.row.id, safe='')}"
    )


def queries(row: InstanceRow) -> list[tuple[str, str]]:
    """PromQL for an instance's series, with what each tells."""
    values = {"account": row.account, "workflow": row.workflow, "instance_id": row.id}
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items())
    workflow = ",".join(f'{name}="{_escaped(values[name])}"' for name in ("account", "workflow"))
    return [
        ("Every series", f'{{__name__=~"cloudflare_workflow_instance_.+",{labels}}}'),
        ("Status", f"{catalogue.STATUS.name}{{{labels}}} == 1"),
        ("Attempts of the open steps", f"{catalogue.CURRENT_STEP_ATTEMPTS.name}{{{labels}}}"),
        ("Seconds since it moved", f"time() - {catalogue.LAST_CHANGE.name}{{{labels}}}"),
        (
            "Step durations of its workflow, 95th percentile",
            f"histogram_quantile(0.95, sum by (le, step) "
            f"(rate({catalogue.STEP_DURATIONS.name}_bucket{{{workflow}}}[1h])))",
        ),
    ]


def changed(known: Explanation) -> list[str]:
    """What moved when the instance last did."""
    first = any(change.figure == "steps" and change.before is None for change in known.changes)
    told = ["steps fetched for the first time"] if first else []
    for figure, before in known.changes:
        after = getattr(known.values, figure, None)
        if first and figure in _KNOWN_WITH_STEPS:
            continue
        text = _FIGURES[figure]
        if figure in _TOLD_BEFORE:
            text += f": {_told(before)} → {_told(after)}"
        told.append(text)
    return told


def _told(value: object) -> str:
    return "none" if value is None else str(value)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
