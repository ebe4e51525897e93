"""Times, durations, counts, links and PromQL queries as the pages show them."""

import re
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from exporter.config.units import Duration
from exporter.metrics import catalogue
from exporter.metrics.text_format import label_pairs
from exporter.web.page.view import Explanation, TableRow

NONE = "\N{EN DASH}"


def span(seconds: float | None) -> str:
    """A duration in its two largest units: `250ms`, `12s`, `3m 20s`, `4h 5m`, `3d 4h`."""
    if seconds is None:
        return NONE
    units = re.findall("[0-9]+[a-z]+", str(Duration(seconds if seconds < 10 else int(seconds))))
    return " ".join(units[:2])


def ago(moment: float | None, now: float) -> str:
    """A moment relative to now: `5s ago`, `in 2m`."""
    if moment is None:
        return NONE
    seconds = round(now - moment)
    if seconds == 0:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def overdue(moment: float, now: float) -> str:
    """How long a poll has been due: `now`, `overdue by 12s`."""
    seconds = round(now - moment)
    return f"overdue by {span(seconds)}" if seconds else "now"


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def utc(moment: float) -> str:
    """`2026-11-24 22:49:44 UTC`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(moment: float) -> str:
    """The `datetime` attribute of a `time` element."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instance_href(row: TableRow) -> str:
    """The address of an instance's page, relative to the table's."""
    return "instance?" + urlencode({"account": row.account, "workflow": row.workflow, "id": row.id})


def dashboard_href(known: Explanation) -> str:
    """The instance in Cloudflare's dashboard; empty where the account's id is unknown."""
    if not known.account_id:
        return ""
    account, workflow, instance = (
        quote(part, safe="") for part in (known.account_id, known.row.workflow, known.row.id)
    )
    return f"https://dash.cloudflare.com/{account}/workers/workflows/{workflow}/instance/{instance}"


def queries(row: TableRow) -> list[tuple[str, str]]:
    """Titles and PromQL queries for an instance's series."""
    workflow = label_pairs(catalogue.WORKFLOW_LABELS, (row.account, row.workflow))
    labels = label_pairs(catalogue.INSTANCE_LABELS, (row.account, row.workflow, row.id))
    return [
        ("Every series", f'{{__name__=~"cloudflare_workflow_instance_.+",{labels}}}'),
        ("Status", f"{catalogue.STATUS.name}{{{labels}}} == 1"),
        ("Attempts of the open steps", f"{catalogue.CURRENT_STEP_ATTEMPTS.name}{{{labels}}}"),
        ("Seconds since the last change", f"time() - {catalogue.LAST_CHANGE.name}{{{labels}}}"),
        (
            "Step durations of its workflow, 95th percentile",
            f"histogram_quantile(0.95, sum by (le, step) "
            f"(rate({catalogue.STEP_DURATIONS.name}_bucket{{{workflow}}}[1h])))",
        ),
    ]
