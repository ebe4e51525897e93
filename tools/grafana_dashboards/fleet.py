"""The dashboard of all workflows: what they do."""

from exporter.statuses import ENDED, MAY_BE_STUCK
from tools.grafana_dashboards.common import (
    AGE,
    ALERTS,
    BAD,
    BY,
    DEFAULTS,
    DEPLOYMENTS,
    IN,
    NONE,
    PREFIX,
    UNKNOWN,
    VARIABLES,
    age,
    once,
)
from tools.grafana_dashboards.dashboard import dashboard
from tools.grafana_dashboards.panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    bars,
    query,
    row,
    series,
    stat,
    table,
    thresholds,
)

_MAY_BE_STUCK = "|".join(MAY_BE_STUCK)
_RUNS = f"cloudflare_workflow_runs_finished_total{{{IN}"
_BUDGET = "scalar(cloudflare_workflow:error_budget:ratio)"

_LINKS = {
    "instance_id": (
        "This instance",
        "/d/cloudflare-workflows-instance?var-account=${__data.fields.Account:percentencode}"
        "&var-workflow=${__data.fields.Workflow}&var-instance_id=${__value.raw:percentencode}"
        "&${__url_time_range}",
    ),
    "workflow": (
        "In Cloudflare's dashboard",
        "https://dash.cloudflare.com/?to=/:account/workers/workflows/${__value.raw}",
    ),
}
_INSTANCE = {"account": "Account", "workflow": "Workflow", "instance_id": "Instance"}
_RATIO = thresholds((GREEN, None), (RED, DEFAULTS["errorBudget"]))
_BURN = thresholds((GREEN, None), (YELLOW, 1), (RED, 14.4))
_NO_RUNS = "No run ended"
_NO_RULES = "No data; needs the recording rules of alerts/prometheus.rules.yaml"


def _quantiles(histogram: str) -> list[Json]:
    return [
        query(
            f"histogram_quantile({q}, sum by (le) "
            f"(rate({histogram}_bucket{{{IN}}}[$__rate_interval])))",
            f"p{100 * q:g}",
            exemplar=True,
        )
        for q in (0.5, 0.9, 0.99)
    ]


def _counted(status: str) -> str:
    of = f'cloudflare_workflow_instances{{{IN}, status="{status}"}}'
    return f"sum({once(of)})"


def _runs(which: str, window: str) -> str:
    """Runs that ended within a window, whichever replicas counted them."""
    return f"sum(increase(cloudflare_workflow:runs_{which}:max{{{IN}}}[{window}]))"


def board() -> Json:
    watched = f"cloudflare_workflow_watched_instances{{{IN}"
    errored = watched + ', status="errored"}'
    waiting = (
        f'{PREFIX}_current_step_start_timestamp_seconds{{{IN}, step_type=~"sleep|waitForEvent"}}'
    )
    instance = f"{BY}, instance_id"
    ended = f"max by ({instance}) ({PREFIX}_end_timestamp_seconds{{{IN}}}) * 1000"
    panels = [
        stat(
            "Errored",
            "Watched instances that are errored, until Cloudflare deletes them.",
            f"sum({once(errored)})",
            UNKNOWN,
            colours=BAD,
        ),
        stat(
            "Stuck",
            "Running, neither sleeping nor waiting, and without progress for too long.",
            f"count({PREFIX}:stuck_age:seconds{{{IN}}}) "
            f"or 0 * count(cloudflare_workflow:data_timestamp:seconds{{{IN}}})",
            _NO_RULES,
            colours=BAD,
        ),
        stat("Running", "As Cloudflare counts them.", _counted("running"), UNKNOWN),
        stat("Queued", "As Cloudflare counts them.", _counted("queued"), UNKNOWN),
        stat(
            "Error budget left",
            f"Of 30 days; the SLO allows {DEFAULTS['errorBudget']:.0%} of the runs to end errored "
            "(alert parameter errorBudget).",
            f"1 - {_runs('errored', '30d')} / ({_runs('ended', '30d')} > 0) / {_BUDGET}",
            f"{_NO_RUNS}, or no recording rules",
            unit="percentunit",
            colours=thresholds((RED, None), (YELLOW, 0), (GREEN, 0.25)),
        ),
        stat(
            "Age of the data",
            "Age of the data of the workflow whose data is oldest.",
            f"max({age(IN)})",
            UNKNOWN,
            unit="s",
            colours=AGE,
        ),
        row("Runs"),
        series(
            "Instances by status",
            "As Cloudflare counts them, whether they are watched or not.",
            [
                query(
                    "sum by (status) ("
                    + once(
                        f"cloudflare_workflow_instances{{{IN}, "
                        f'status!~"{"|".join(sorted(ENDED))}"}}',
                        "status",
                    )
                    + ")",
                    "{{status}}",
                )
            ],
            NONE,
            stacked=True,
        ),
        series(
            "Watched instances by status",
            "Instances that the exporter watches, with or without series of their own.",
            [query(f"sum by (status) ({once(watched + '}', 'status')})", "{{status}}")],
            NONE,
            stacked=True,
        ),
        series(
            "Finished runs by status",
            "Finished runs per second.",
            [
                query(
                    "sum by (status) ("
                    + once(f"rate({_RUNS}}}[$__rate_interval])", "status")
                    + ")",
                    "{{status}}",
                )
            ],
            _NO_RUNS,
            unit="ops",
            stacked=True,
        ),
        series(
            "Runs by version",
            "Instances with series, by the version of the Worker that runs them.",
            [
                query(
                    f"cloudflare_workflow:instances_by_version:count{{{IN}}}",
                    "{{account}} {{workflow}}: {{version_id}}",
                )
            ],
            _NO_RULES,
            stacked=True,
        ),
        series(
            "Error ratio by workflow",
            "Share of runs that errored within an hour, and the share that the SLO allows.",
            [query(f"cloudflare_workflow:run_error_ratio:1h{{{IN}}}", "{{account}} {{workflow}}")],
            _NO_RULES,
            unit="percentunit",
            limits=_RATIO,
        ),
        series(
            "Error budget burn",
            "1 uses up the budget in 30 days; 14.4 over an hour, or 6 over six, is an alert.",
            [
                query(
                    f"cloudflare_workflow:run_error_ratio:{window}{{{IN}}} / {_BUDGET}",
                    f"{{{{account}}}} {{{{workflow}}}} over {window}",
                )
                for window in ("1h", "6h", "3d")
            ],
            _NO_RULES,
            limits=_BURN,
        ),
        series(
            "Run duration",
            "From start to end of finished runs; points are single runs.",
            _quantiles("cloudflare_workflow_run_duration_seconds"),
            _NO_RUNS,
            unit="s",
        ),
        series(
            "Time in the queue",
            "From queued to start of started runs.",
            _quantiles("cloudflare_workflow_queue_duration_seconds"),
            "No run started",
            unit="s",
            limits=thresholds((GREEN, None), (RED, DEFAULTS["queueSeconds"])),
        ),
        row("Instances"),
        bars(
            "Errors by step and name",
            "Instances with an error, by failing step and error name.",
            f"topk(15, count by ({BY}, step, error_name) ("
            f"max by ({instance}, step, error_name) ({PREFIX}_error_info{{{IN}}})))",
            "{{account}} {{workflow}}: {{step}} {{error_name}}",
            "No instance has an error",
        ),
        table(
            "Longest without progress",
            "Live instances that neither sleep nor wait for an event.",
            f"topk(50, time() - max by ({instance}) "
            f"({PREFIX}_last_change_timestamp_seconds{{{IN}}}) and on ({instance}) "
            f'{PREFIX}_status{{{IN}, status=~"{_MAY_BE_STUCK}"}} == 1 '
            f"unless on ({instance}) {waiting})",
            {**_INSTANCE, "Value": "Without progress"},
            NONE,
            unit="s",
            width=12,
            links=_LINKS,
        ),
        table(
            "Errored",
            "The errored instances that ended most recently.",
            f"topk(50, max by ({instance}, error_name, step) ({PREFIX}_error_info{{{IN}}}) "
            f"* on ({instance}) group_left () {ended} or on ({instance}) {ended} "
            f'and on ({instance}) {PREFIX}_status{{{IN}, status="errored"}} == 1)',
            {**_INSTANCE, "error_name": "Error", "step": "Step", "Value": "Ended"},
            "No instance is errored",
            unit="dateTimeAsIso",
            links=_LINKS,
        ),
        table(
            "Longest sleeping or waiting",
            "Instances in a sleep or waiting for an event.",
            f"topk(50, time() - min by ({instance}, step, step_type) ({waiting}))",
            {**_INSTANCE, "step": "Step", "step_type": "Kind", "Value": "Waiting"},
            NONE,
            unit="s",
            width=12,
            links=_LINKS,
        ),
        table(
            "Most attempts of an open step",
            "Retries inside an open step show within poll.detail_refresh.",
            f"topk(50, max by ({instance}, step) ({PREFIX}_current_step_attempts{{{IN}}}) > 0)",
            {**_INSTANCE, "step": "Step", "Value": "Attempts"},
            NONE,
            width=12,
            links=_LINKS,
        ),
        table(
            "Most steps",
            "Live instances; Cloudflare ends them with an error at their limit.",
            f"topk(50, max by ({instance}) ({PREFIX}_step_count{{{IN}}}) "
            f"unless on ({instance}) {PREFIX}_end_timestamp_seconds{{{IN}}})",
            {**_INSTANCE, "Value": "Steps"},
            NONE,
            links=_LINKS,
        ),
    ]
    return dashboard(
        "cloudflare-workflows",
        "Cloudflare Workflows",
        "What the workflows do: which instances errored, are stuck or retry, how long runs take, "
        "and what is left of the error budget.",
        VARIABLES,
        panels,
        annotations=[ALERTS, DEPLOYMENTS],
    )
