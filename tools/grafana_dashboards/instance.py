"""The dashboard of one instance, from queued to its end."""

from tools.grafana_dashboards.common import (
    ALERTS,
    BY,
    IN,
    NONE,
    PREFIX,
    UNKNOWN,
    VARIABLES,
)
from tools.grafana_dashboards.dashboard import dashboard, label_variable, link
from tools.grafana_dashboards.panels import Json, query, series, stat, table, timeline

_ONE = f'{IN}, instance_id="$instance_id"'
"""No regular expression: Grafana does not escape the single value of a variable, and ids of runs
that a cron trigger started have `*`."""


def board() -> Json:

    def time_of(what: str) -> Json:
        return stat(
            what.capitalize(),
            f"When the run was {what}." if what == "queued" else f"The run's {what}.",
            f"max({PREFIX}_{what}_timestamp_seconds{{{_ONE}}}) * 1000",
            "Not yet",
            unit="dateTimeAsIso",
        )

    panels = [
        stat(
            "Status",
            "As of the last poll.",
            f"max by (status) ({PREFIX}_status{{{_ONE}}} == 1)",
            "No series: not watched, or expired",
            legend="{{status}}",
        ),
        *map(time_of, ("queued", "start", "end")),
        stat("Steps", "Begun so far.", f"max({PREFIX}_step_count{{{_ONE}}})", UNKNOWN),
        stat(
            "Retries",
            "Beyond each step's first attempt.",
            f"max({PREFIX}_retries{{{_ONE}}})",
            UNKNOWN,
        ),
        timeline(
            "Status over time",
            "A row for each status of the instance.",
            query(f"max by (status) ({PREFIX}_status{{{_ONE}}} == 1)", "{{status}}"),
            "No status in the selected time range",
        ),
        timeline(
            "Open steps over time",
            "A row for each step while it was open, with its current attempt.",
            query(
                f"max by (step, step_type) ({PREFIX}_current_step_attempts{{{_ONE}}})",
                "{{step_type}} {{step}}",
            ),
            "No step was open",
            height=10,
        ),
        series(
            "Attempts by outcome",
            "Over all steps of the run.",
            [query(f"max by (outcome) ({PREFIX}_attempts{{{_ONE}}})", "{{outcome}}")],
            NONE,
            stacked=True,
        ),
        series(
            "Steps by outcome",
            "Steps, sleeps and waits of the run.",
            [
                query(
                    f"max by (step_type, outcome) ({PREFIX}_steps{{{_ONE}}}) > 0",
                    "{{step_type}} {{outcome}}",
                )
            ],
            NONE,
            stacked=True,
        ),
        table(
            "Open steps",
            "Steps that are open now, and for how long.",
            "time() - min by (step, step_type) "
            f"({PREFIX}_current_step_start_timestamp_seconds{{{_ONE}}})",
            {"step": "Step", "step_type": "Kind", "Value": "Open for"},
            "No step is open",
            unit="s",
            width=8,
        ),
        table(
            "Error",
            "Error name and failing step. Cloudflare's dashboard shows the message.",
            f"max by (error_name, step) ({PREFIX}_error_info{{{_ONE}}})",
            {"error_name": "Error", "step": "Step"},
            "No error",
            width=8,
        ),
        table(
            "Version and exporter",
            "The exporter's page shows the last request and the next poll.",
            f"max by (instance, version_id, trigger, {BY}, instance_id) ({PREFIX}_info{{{_ONE}}})",
            {
                "account": "Account",
                "workflow": "Workflow",
                "version_id": "Version",
                "trigger": "Trigger",
                "instance_id": "Instance",
                "instance": "Exporter",
            },
            NONE,
            width=8,
            links={
                "instance": (
                    "The exporter's page of this instance",
                    "http://${__value.raw}/instance?account=${__data.fields.Account:percentencode}"
                    "&workflow=${__data.fields.Workflow}"
                    "&id=${__data.fields.Instance:percentencode}",
                )
            },
        ),
    ]
    chosen = label_variable("instance_id", "Instance", f"{PREFIX}_info{{{IN}}}", several=False)
    cloudflare = link(
        "In Cloudflare's dashboard",
        "https://dash.cloudflare.com/?to=/:account/workers/workflows/${workflow:percentencode}"
        "/instance/${instance_id:percentencode}",
    )
    return dashboard(
        "cloudflare-workflows-instance",
        "Cloudflare Workflows instance",
        "One instance: its status, steps, attempts and error.",
        [*VARIABLES, chosen],
        panels,
        annotations=[ALERTS],
        links=[cloudflare],
    )
