"""Grafana's dashboards: workflows, their steps, one instance, and the exporter's health.

Every panel honours every variable of its dashboard. Graphs over time read metrics of workflows and
recording rules, never a series of each instance: Prometheus refuses a query that loads more than
50,000,000 samples (`benchmarks/rules_cost.py`). Tables of instances ask for the end of the time
shown.
"""

import json
from pathlib import Path

from exporter.statuses import MAY_BE_STUCK
from tools import CHART, ROOT
from tools.alert_rules import parameters
from tools.grafana_panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    annotation,
    bars,
    dashboard,
    heatmap,
    label_variable,
    link,
    query,
    row,
    series,
    stat,
    table,
    thresholds,
    timeline,
)

FOLDER = ROOT / "grafana" / "dashboards"

_P = {name: parameter["default"] for name, parameter in parameters().items()}
_IN = 'account=~"$account", workflow=~"$workflow"'
_STEP = f'{_IN}, step=~"$step"'
_ONE = f'{_IN}, instance_id=~"$instance_id"'
_TARGET = 'job=~"$job", instance=~"$instance"'
_BY = "account, workflow"
_MAY_BE_STUCK = "|".join(MAY_BE_STUCK)
_OWN = "cloudflare_workflows_exporter"
_S = "cloudflare_workflow_instance"
_RUNS = f"cloudflare_workflow_runs_finished_total{{{_IN}"
_BUDGET = "scalar(cloudflare_workflow:error_budget:ratio)"

_ACCOUNT = label_variable("account", "Account", "cloudflare_workflow_up")
_WORKFLOW = label_variable("workflow", "Workflow", 'cloudflare_workflow_up{account=~"$account"}')
_VARIABLES = [_ACCOUNT, _WORKFLOW]
_INSTANCE = {"account": "Account", "workflow": "Workflow", "instance_id": "Instance"}
_LINKS = {
    "instance_id": (
        "This instance",
        "/d/cloudflare-workflows-instance?var-account=${__data.fields.Account}"
        "&var-workflow=${__data.fields.Workflow}&var-instance_id=${__value.raw:percentencode}"
        "&${__url_time_range}",
    ),
    "workflow": (
        "In Cloudflare's dashboard",
        "https://dash.cloudflare.com/?to=/:account/workers/workflows/${__value.raw}",
    ),
}
_BAD = thresholds((GREEN, None), (RED, 1))
_AGE = thresholds(
    (GREEN, None), (YELLOW, _P["staleAfterSeconds"] / 2), (RED, _P["staleAfterSeconds"])
)
_RATIO = thresholds((GREEN, None), (RED, _P["errorBudget"]))
_BURN = thresholds((GREEN, None), (YELLOW, 1), (RED, 14.4))
_NO_RUNS = "No run ended"
_NO_STEPS = "No step ended"
_NO_RULES = "No data; needs the recording rules of alerts/prometheus.rules.yaml"
_NONE = "None"
_NO_EVENTS = "No events configured"
_NO_REPLICAS = "No database is shared"

_ALERTS = annotation(
    "Alerts",
    "red",
    f'count by (alertname, {_BY}) (ALERTS{{alertname=~"CloudflareWorkflow.*", '
    f'alertstate="firing", {_IN}}})',
    "{{alertname}}",
    "{{account}} {{workflow}}",
)
_DEPLOYMENTS = annotation(
    "New versions",
    "blue",
    f"cloudflare_workflow:instances_by_version:count{{{_IN}}} "
    f"unless last_over_time(cloudflare_workflow:instances_by_version:count{{{_IN}}}[1h] offset 5m)",
    "New version of {{workflow}}",
    "{{version_id}}",
)


def _once(value: str, labels: str = "") -> str:
    """A metric of workflows, once for each although several targets may show it."""
    by = f"{_BY}, {labels}" if labels else _BY
    return f"max by ({by}) ({value})"


def _quantiles(histogram: str) -> list[Json]:
    return [
        query(
            f"histogram_quantile({q}, sum by (le) "
            f"(rate({histogram}_bucket{{{_IN}}}[$__rate_interval])))",
            f"p{100 * q:g}",
            exemplar=True,
        )
        for q in (0.5, 0.9, 0.99)
    ]


def _age(selector: str) -> str:
    return f"time() - {_once(f'cloudflare_workflow_data_timestamp_seconds{{{selector}}} > 0')}"


def _counted(status: str) -> str:
    of = f'cloudflare_workflow_instances{{{_IN}, status="{status}"}}'
    return f"sum({_once(of)})"


def _runs(which: str, window: str) -> str:
    """Runs that ended within a window, whichever replicas counted them."""
    return f"sum(increase(cloudflare_workflow:runs_{which}:max{{{_IN}}}[{window}]))"


def fleet() -> Json:
    """What the workflows do."""
    watched = f"cloudflare_workflow_watched_instances{{{_IN}"
    errored = watched + ', status="errored"}'
    waiting = f'{_S}_current_step_start_timestamp_seconds{{{_IN}, step_type=~"sleep|waitForEvent"}}'
    instance = f"{_BY}, instance_id"
    ended = f"max by ({instance}) ({_S}_end_timestamp_seconds{{{_IN}}}) * 1000"
    panels = [
        stat(
            "Errored",
            "Watched instances that are errored, until Cloudflare deletes them.",
            f"sum({_once(errored)})",
            "0",
            colours=_BAD,
        ),
        stat(
            "Stuck",
            "Running, neither sleeping nor waiting, and without progress for too long.",
            f"count({_S}:stuck_age:seconds{{{_IN}}})",
            "0",
            colours=_BAD,
        ),
        stat("Running", "As Cloudflare counts them.", _counted("running"), "0"),
        stat("Queued", "As Cloudflare counts them.", _counted("queued"), "0"),
        stat(
            "Error budget left",
            f"Of 30 days; the SLO allows {_P['errorBudget']:.0%} of the runs to end errored "
            "(alert parameter errorBudget).",
            f"1 - {_runs('errored', '30d')} / {_runs('ended', '30d')} / {_BUDGET}",
            _NO_RULES,
            unit="percentunit",
            colours=thresholds((RED, None), (YELLOW, 0), (GREEN, 0.25)),
        ),
        stat(
            "Age of the data",
            "Age of the data of the workflow whose data is oldest.",
            f"max({_age(_IN)})",
            "Never polled",
            unit="s",
            colours=_AGE,
        ),
        row("Runs"),
        series(
            "Instances by status",
            "As Cloudflare counts them, whether they are watched or not.",
            [
                query(
                    "sum by (status) ("
                    + _once(
                        f"cloudflare_workflow_instances{{{_IN}, "
                        'status!~"complete|errored|terminated"}',
                        "status",
                    )
                    + ")",
                    "{{status}}",
                )
            ],
            _NONE,
            stacked=True,
        ),
        series(
            "Watched instances by status",
            "Instances that the exporter watches, with or without series of their own.",
            [query(f"sum by (status) ({_once(watched + '}', 'status')})", "{{status}}")],
            _NONE,
            stacked=True,
        ),
        series(
            "Finished runs by status",
            "Finished runs per second.",
            [
                query(
                    "sum by (status) ("
                    + _once(f"rate({_RUNS}}}[$__rate_interval])", "status")
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
                    f"cloudflare_workflow:instances_by_version:count{{{_IN}}}",
                    "{{workflow}}: {{version_id}}",
                )
            ],
            _NO_RULES,
            stacked=True,
        ),
        series(
            "Error ratio by workflow",
            "Share of runs that errored within an hour, and the share that the SLO allows.",
            [query(f"cloudflare_workflow:run_error_ratio:1h{{{_IN}}}", "{{workflow}}")],
            _NO_RULES,
            unit="percentunit",
            limits=_RATIO,
        ),
        series(
            "Error budget burn",
            "1 uses up the budget in 30 days; 14.4 over an hour, or 6 over six, is an alert.",
            [
                query(
                    f"cloudflare_workflow:run_error_ratio:{window}{{{_IN}}} / {_BUDGET}",
                    f"{{{{workflow}}}} over {window}",
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
            limits=thresholds((GREEN, None), (RED, _P["queueSeconds"])),
        ),
        row("Instances"),
        bars(
            "Errors by step and name",
            "Instances with an error, by failing step and error name.",
            "topk(15, count by (workflow, step, error_name) ("
            f"max by ({instance}, step, error_name) ({_S}_error_info{{{_IN}}})))",
            "{{workflow}}: {{step}} {{error_name}}",
            "No instance has an error",
        ),
        table(
            "Longest without progress",
            "Live instances that neither sleep nor wait for an event.",
            f"topk(50, time() - max by ({instance}) "
            f"({_S}_last_change_timestamp_seconds{{{_IN}}}) and on ({instance}) "
            f'{_S}_status{{{_IN}, status=~"{_MAY_BE_STUCK}"}} == 1 '
            f"unless on ({instance}) {waiting})",
            {**_INSTANCE, "Value": "Without progress"},
            _NONE,
            unit="s",
            width=12,
            links=_LINKS,
        ),
        table(
            "Errored",
            "The errored instances that ended most recently.",
            f"topk(50, max by ({instance}, error_name, step) ({_S}_error_info{{{_IN}}}) "
            f"* on ({instance}) group_left () {ended} or on ({instance}) {ended} "
            f'and on ({instance}) {_S}_status{{{_IN}, status="errored"}} == 1)',
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
            _NONE,
            unit="s",
            width=12,
            links=_LINKS,
        ),
        table(
            "Most attempts of an open step",
            "Retries inside an open step show within poll.detail_refresh.",
            f"topk(50, max by ({instance}, step) ({_S}_current_step_attempts{{{_IN}}}) > 0)",
            {**_INSTANCE, "step": "Step", "Value": "Attempts"},
            _NONE,
            width=12,
            links=_LINKS,
        ),
        table(
            "Most steps",
            "Live instances; Cloudflare ends them with an error at their limit.",
            f"topk(50, max by ({instance}) ({_S}_step_count{{{_IN}}}) "
            f"unless on ({instance}) {_S}_end_timestamp_seconds{{{_IN}}})",
            {**_INSTANCE, "Value": "Steps"},
            _NONE,
            links=_LINKS,
        ),
    ]
    return dashboard(
        "cloudflare-workflows",
        "Cloudflare Workflows",
        "What the workflows do: which instances errored, are stuck or retry, how long runs take, "
        "and what is left of the error budget.",
        _VARIABLES,
        panels,
        annotations=[_ALERTS, _DEPLOYMENTS],
    )


def steps() -> Json:
    """How long steps take, and how often they fail."""
    attempts = "cloudflare_workflow_step_attempt_duration_seconds"
    durations = f"cloudflare_workflow_step_duration_seconds_bucket{{{_STEP}, step_type="
    taken = "cloudflare_workflow_step_attempts"
    panels = [
        heatmap(
            "Step duration",
            "Duration of finished steps, including retries and the delays between them.",
            f'sum by (le) (increase({durations}"step"}}[$__rate_interval]))',
            _NO_STEPS,
        ),
        heatmap(
            "Attempt duration",
            "Duration of finished attempts.",
            f"sum by (le) (increase({attempts}_bucket{{{_STEP}}}[$__rate_interval]))",
            _NO_STEPS,
        ),
        bars(
            "Slowest steps",
            "90th percentile over the selected time range.",
            "topk(10, histogram_quantile(0.9, sum by (workflow, step, le) "
            f'(increase({durations}"step"}}[$__range]))))',
            "{{workflow}}: {{step}}",
            _NO_STEPS,
            unit="s",
        ),
        bars(
            "Steps that fail most",
            "Failed attempts in the selected time range.",
            "topk(10, sum by (workflow, step) "
            f'(increase({attempts}_count{{{_STEP}, outcome="failure"}}[$__range])))',
            "{{workflow}}: {{step}}",
            "No attempt failed",
        ),
        series(
            "Attempts by outcome",
            "Finished attempts per second.",
            [
                query(
                    f"sum by (outcome) (rate({attempts}_count{{{_STEP}}}[$__rate_interval]))",
                    "{{outcome}}",
                )
            ],
            _NO_STEPS,
            unit="ops",
        ),
        series(
            "Failed attempts by workflow",
            "Share of attempts that failed within 15 minutes; many failed attempts above the line "
            "are a retry storm.",
            [
                query(
                    "sum by (workflow) "
                    f'(increase({attempts}_count{{{_STEP}, outcome="failure"}}[15m])) '
                    f"/ sum by (workflow) (increase({attempts}_count{{{_STEP}}}[15m]))",
                    "{{workflow}}",
                )
            ],
            _NO_STEPS,
            unit="percentunit",
            limits=thresholds((GREEN, None), (RED, _P["retryStormRatio"])),
        ),
        series(
            "Attempts per step",
            "Mean of finished steps.",
            [
                query(
                    f"sum by (workflow) (rate({taken}_sum{{{_STEP}}}[$__rate_interval])) "
                    f"/ sum by (workflow) (rate({taken}_count{{{_STEP}}}[$__rate_interval]))",
                    "{{workflow}}",
                )
            ],
            _NO_STEPS,
        ),
        series(
            "Step duration by step",
            "90% of the steps take no longer; points are single steps.",
            [
                query(
                    "histogram_quantile(0.9, sum by (step, le) "
                    f'(rate({durations}"step"}}[$__rate_interval])))',
                    "{{step}}",
                    exemplar=True,
                )
            ],
            _NO_STEPS,
            unit="s",
        ),
    ]
    step = label_variable(
        "step", "Step", f"cloudflare_workflow_step_duration_seconds_count{{{_IN}}}"
    )
    return dashboard(
        "cloudflare-workflows-steps",
        "Cloudflare Workflows steps",
        "How long steps and their attempts take, and which fail.",
        [*_VARIABLES, step],
        panels,
        annotations=[_ALERTS, _DEPLOYMENTS],
    )


def instance() -> Json:
    """One instance, from queued to its end."""

    def time_of(what: str) -> Json:
        return stat(
            what.capitalize(),
            f"When the run was {what}." if what == "queued" else f"The run's {what}.",
            f"max({_S}_{what}_timestamp_seconds{{{_ONE}}}) * 1000",
            "Not yet",
            unit="dateTimeAsIso",
        )

    panels = [
        stat(
            "Status",
            "As of the last poll.",
            f"max by (status) ({_S}_status{{{_ONE}}} == 1)",
            "No series: not watched, or expired",
            legend="{{status}}",
        ),
        *map(time_of, ("queued", "start", "end")),
        stat("Steps", "Begun so far.", f"max({_S}_step_count{{{_ONE}}})", "Not known"),
        stat(
            "Retries",
            "Beyond each step's first attempt.",
            f"max({_S}_retries{{{_ONE}}})",
            "Not known",
        ),
        timeline(
            "Status over time",
            "A row for each status of the instance.",
            query(f"max by (status) ({_S}_status{{{_ONE}}} == 1)", "{{status}}"),
            "No status in the selected time range",
        ),
        timeline(
            "Open steps over time",
            "A row for each step while it was open, with its current attempt.",
            query(
                f"max by (step, step_type) ({_S}_current_step_attempts{{{_ONE}}})",
                "{{step_type}} {{step}}",
            ),
            "No step was open",
            height=10,
        ),
        series(
            "Attempts by outcome",
            "Over all steps of the run.",
            [query(f"max by (outcome) ({_S}_attempts{{{_ONE}}})", "{{outcome}}")],
            _NONE,
            stacked=True,
        ),
        series(
            "Steps by outcome",
            "Steps, sleeps and waits of the run.",
            [
                query(
                    f"max by (step_type, outcome) ({_S}_steps{{{_ONE}}}) > 0",
                    "{{step_type}} {{outcome}}",
                )
            ],
            _NONE,
            stacked=True,
        ),
        table(
            "Open steps",
            "Steps that are open now, and for how long.",
            "time() - min by (step, step_type) "
            f"({_S}_current_step_start_timestamp_seconds{{{_ONE}}})",
            {"step": "Step", "step_type": "Kind", "Value": "Open for"},
            "No step is open",
            unit="s",
            width=8,
        ),
        table(
            "Error",
            "Error name and failing step. Cloudflare's dashboard shows the message.",
            f"max by (error_name, step) ({_S}_error_info{{{_ONE}}})",
            {"error_name": "Error", "step": "Step"},
            "No error",
            width=8,
        ),
        table(
            "Version and exporter",
            "The exporter's page shows the last request and the next poll.",
            f"max by (instance, version_id, trigger, {_BY}, instance_id) ({_S}_info{{{_ONE}}})",
            {
                "account": "Account",
                "workflow": "Workflow",
                "version_id": "Version",
                "trigger": "Trigger",
                "instance_id": "Instance",
                "instance": "Exporter",
            },
            _NONE,
            width=8,
            links={
                "instance": (
                    "The exporter's page of this instance",
                    "http://${__value.raw}/instance?account=${__data.fields.Account}"
                    "&workflow=${__data.fields.Workflow}"
                    "&id=${__data.fields.Instance:percentencode}",
                )
            },
        ),
    ]
    chosen = label_variable("instance_id", "Instance", f"{_S}_info{{{_IN}}}", several=False)
    cloudflare = link(
        "In Cloudflare's dashboard",
        "https://dash.cloudflare.com/?to=/:account/workers/workflows/${workflow:percentencode}"
        "/instance/${instance_id:percentencode}",
    )
    return dashboard(
        "cloudflare-workflows-instance",
        "Cloudflare Workflows instance",
        "One instance: its status, steps, attempts and error.",
        [*_VARIABLES, chosen],
        panels,
        annotations=[_ALERTS],
        links=[cloudflare],
    )


def exporter() -> Json:
    """How well the exporter sees them."""
    at = f"{{{_TARGET}}}"
    join = f"* on (job, instance) group_left () max by (job, instance) ({_OWN}_build_info{at})"
    remaining = f"{_OWN}_api_ratelimit_remaining{at}"
    limit = f"{_OWN}_api_ratelimit_limit{at}"

    def rate(name: str, labels: str = "", more: str = "") -> str:
        of = f"rate({_OWN}_{name}{{{_TARGET}{more}}}[$__rate_interval])"
        return f"sum by ({labels}) ({of})"

    def process(title: str, help_: str, expr: str, unit: str = "short") -> Json:
        return series(title, help_, [query(f"{expr} {join}", "{{instance}}")], _NONE, unit=unit)

    lag = thresholds((GREEN, None), (YELLOW, _P["lagSeconds"] / 4), (RED, _P["lagSeconds"]))
    panels = [
        stat(
            "Exporters",
            "Exporters that Prometheus scrapes, by version.",
            f"count by (version) ({_OWN}_build_info{at})",
            "No exporter",
            legend="{{version}}",
        ),
        stat(
            "Workflows that fail",
            "Workflows that can't be read as a whole.",
            f"count(cloudflare_workflow_up{at} == 0)",
            "0",
            colours=_BAD,
        ),
        stat(
            "Instances that fail",
            "Instances whose last poll failed.",
            f"sum(cloudflare_workflow_failing_instances{at})",
            "0",
            colours=_BAD,
        ),
        stat(
            "Lag",
            "Time by which the most overdue poll or list pass is late.",
            f"max({_OWN}_poll_lag_seconds{at})",
            _NONE,
            unit="s",
            colours=lag,
        ),
        stat(
            "Limit left",
            "Remaining share of the user's requests in 5 minutes, over all clients.",
            f"min({remaining} / {limit})",
            "No rate-limit headers yet",
            unit="percentunit",
            colours=thresholds((RED, None), (YELLOW, 0.1), (GREEN, 0.25)),
        ),
        stat(
            "Blocked for",
            "Time until requests are sent again after a 429.",
            f"max(clamp_min({_OWN}_api_blocked_until_timestamp_seconds{at} - time(), 0))",
            "Not blocked",
            unit="s",
            colours=_BAD,
        ),
        row("Cloudflare's API"),
        series(
            "Requests in 5 minutes",
            "By account, with the user's limit.",
            [
                query(
                    f"sum by (account) (increase({_OWN}_api_requests_total{at}[5m]))", "{{account}}"
                ),
                query(f"max by (account) ({limit})", "limit of {{account}}"),
            ],
            "No request",
        ),
        series(
            "Remaining requests",
            "Requests that the user has left, as of Cloudflare's last response.",
            [query(f"min by (account) ({remaining})", "{{account}}")],
            "No rate-limit headers yet",
        ),
        series(
            "Requests by result",
            "Requests per second by HTTP status, or by error where there was no response.",
            [query(rate("api_requests_total", "code") + " > 0", "{{code}}")],
            "No request",
            unit="reqps",
            stacked=True,
        ),
        series(
            "Request duration",
            "90% of the requests to an endpoint take no longer.",
            [
                query(
                    "histogram_quantile(0.9, "
                    + rate("api_request_duration_seconds_bucket", "endpoint, le")
                    + ")",
                    "{{endpoint}}",
                )
            ],
            "No request",
            unit="s",
        ),
        row("Polls"),
        series(
            "Polls by kind and result",
            "Polls and list pages per second.",
            [query(rate("polls_total", "kind, result") + " > 0", "{{kind}}: {{result}}")],
            "No poll",
            unit="ops",
        ),
        series(
            "Lag",
            "Time by which the most overdue poll or list pass is late.",
            [query(f"{_OWN}_poll_lag_seconds{at}", "{{instance}}")],
            _NONE,
            unit="s",
            limits=lag,
        ),
        series(
            "Age of the data by workflow",
            "Age of the data shown.",
            [query(_age(_TARGET), "{{workflow}}")],
            "Never polled",
            unit="s",
            limits=_AGE,
        ),
        series(
            "Watched instances",
            "Instances that the exporter watches, with or without series of their own.",
            [
                query(
                    f"sum by (account, workflow) (cloudflare_workflow_watched_instances{at})",
                    "{{workflow}}",
                )
            ],
            _NONE,
            stacked=True,
        ),
        series(
            "Failing instances",
            "Instances whose last poll failed, by class of failure.",
            [
                query(
                    f"sum by (workflow, result) (cloudflare_workflow_failing_instances{at}) > 0",
                    "{{workflow}}: {{result}}",
                )
            ],
            _NONE,
            stacked=True,
        ),
        series(
            "Left out",
            "Instances, step names and details dropped per hour by a limit or the budget, and "
            "unreadable parts of responses; an unreadable row counts in each list pass.",
            [
                query(f"sum(increase({_OWN}_instances_dropped_total{at}[1h]))", "instances"),
                query(f"sum(increase({_OWN}_step_names_dropped_total{at}[1h]))", "step names"),
                query(f"sum(increase({_OWN}_rows_ignored_total{at}[1h]))", "unread, by response"),
                query(
                    f"sum(increase(cloudflare_workflow_details_skipped_total{at}[1h]))",
                    "runs without steps",
                ),
            ],
            "Nothing",
        ),
        row("Events"),
        series(
            "Event coverage",
            "Share of the changes that list passes found in the last hour which an event had "
            "announced, by account. Below 99% list passes are back at poll.interval.",
            [query(f"min by (account) ({_OWN}_event_coverage_ratio{at})", "{{account}}")],
            _NO_EVENTS,
            unit="percentunit",
        ),
        series(
            "Event delay",
            "Seconds from an event until what it announced was shown.",
            [
                query(
                    f"histogram_quantile({quantile}, "
                    f"sum by (le) (rate({_OWN}_event_delay_seconds_bucket{at}[15m])))",
                    name,
                )
                for quantile, name in ((0.5, "median"), (0.99, "99th percentile"))
            ],
            _NO_EVENTS,
            unit="s",
        ),
        series(
            "Events",
            "Per hour, by type and what came of them.",
            [
                query(
                    f"sum by (type, result) (increase({_OWN}_events_total{at}[1h])) > 0",
                    "{{type}}: {{result}}",
                )
            ],
            _NO_EVENTS,
            stacked=True,
        ),
        series(
            "Queue backlog",
            "Messages in the queue, by account.",
            [query(f"max by (account) ({_OWN}_event_queue_backlog{at})", "{{account}}")],
            _NO_EVENTS,
        ),
        row("Replicas"),
        series(
            "Live replicas",
            "Replicas that share a database, as each of them sees it.",
            [query(f"{_OWN}_replicas{at}", "{{instance}}")],
            _NO_REPLICAS,
        ),
        series(
            "Workflows by replica",
            "Workflows that each replica holds, and those that none holds.",
            [
                query(f"{_OWN}_workflows_held{at}", "{{instance}}"),
                query(f"max by (job) ({_OWN}_workflows_unheld{at})", "held by none"),
            ],
            _NO_REPLICAS,
            stacked=True,
        ),
        series(
            "Lost leases",
            "Workflows per hour that others took over, since a replica could not renew its lease "
            "in time.",
            [query(f"increase({_OWN}_leases_lost_total{at}[1h])", "{{instance}}")],
            _NO_REPLICAS,
            limits=_BAD,
        ),
        series(
            "Hand-overs",
            "Workflows per hour that changed hands.",
            [query(f"sum by (job) (changes({_OWN}_workflows_held{at}[1h]))", "{{job}}")],
            _NO_REPLICAS,
        ),
        row("Process"),
        process("Series", "Samples in a scrape.", f"scrape_samples_scraped{at}"),
        process("Scrape duration", "As Prometheus sees it.", f"scrape_duration_seconds{at}", "s"),
        process("Memory", "Resident memory.", f"process_resident_memory_bytes{at}", "bytes"),
        process("CPU", "Cores in use.", f"rate(process_cpu_seconds_total{at}[$__rate_interval])"),
        series(
            "State write errors",
            "Per hour. Until a write succeeds, counters show the last committed values.",
            [query(f"increase({_OWN}_state_write_errors_total{at}[1h])", "{{instance}}")],
            _NONE,
            limits=_BAD,
        ),
        table(
            "Configuration",
            "When each exporter last loaded its configuration successfully.",
            f"{_OWN}_config_last_reload_success_timestamp_seconds{at} * 1000",
            {"instance": "Exporter", "job": "Job", "Value": "Loaded"},
            _NONE,
            unit="dateTimeAsIso",
            width=12,
            links={"instance": ("The exporter's page", "http://${__value.raw}/")},
        ),
    ]
    alerts = annotation(
        "Alerts",
        "red",
        'count by (alertname, job) (ALERTS{alertname=~"CloudflareWorkflowsExporter.*", '
        'alertstate="firing", job=~"$job|", instance=~"$instance|"})',
        "{{alertname}}",
        "{{job}}",
    )
    versions = annotation(
        "New versions",
        "blue",
        f"count by (version) ({_OWN}_build_info{at}) "
        f"unless count by (version) (last_over_time({_OWN}_build_info{at}[1h] offset 5m))",
        "Exporter {{version}}",
        "",
    )
    return dashboard(
        "cloudflare-workflows-exporter",
        "Cloudflare Workflows exporter",
        "Health of the exporter: request budget, lag, failures, and the age of the data.",
        [
            label_variable("job", "Job", f"{_OWN}_build_info"),
            label_variable("instance", "Exporter", f'{_OWN}_build_info{{job=~"$job"}}'),
        ],
        panels,
        annotations=[alerts, versions],
    )


ALL = (fleet, steps, instance, exporter)


def outputs() -> dict[Path, str]:
    """Each generated file with its content."""
    boards = [board() for board in ALL]
    return {
        folder / f"{board['uid']}.json": json.dumps(board, indent=2) + "\n"
        for folder in (FOLDER, CHART / "files" / "dashboards")
        for board in boards
    }
