"""Grafana's dashboards: the fleet of workflows, and the exporter's health."""

import json
from pathlib import Path

from generate import CHART, ROOT
from generate.panels import (
    GREEN,
    RED,
    YELLOW,
    Json,
    bars,
    dashboard,
    heatmap,
    label_variable,
    query,
    row,
    series,
    stat,
    table,
    thresholds,
)

FOLDER = ROOT / "grafana" / "dashboards"

_IN = 'account=~"$account", workflow=~"$workflow"'
_VARIABLES = [
    label_variable("account", "Account", "cloudflare_workflow_up"),
    label_variable("workflow", "Workflow", 'cloudflare_workflow_up{account=~"$account"}'),
]
_INSTANCE = {"account": "Account", "workflow": "Workflow", "instance_id": "Instance"}
_BAD = thresholds((GREEN, None), (RED, 1))
_LIVE = "running|waitingForPause|rollingBack"
_RUNS = f"cloudflare_workflow_runs_finished_total{{{_IN}"


def _quantiles(histogram: str, more: str = "") -> list[Json]:
    return [
        query(
            f"histogram_quantile({q}, sum by (le) "
            f"(rate({histogram}_bucket{{{_IN}{more}}}[$__rate_interval])))",
            f"p{100 * q:g}",
        )
        for q in (0.5, 0.9, 0.99)
    ]


def fleet() -> Json:
    """What the workflows do."""
    panels = [
        stat(
            "Errored",
            "Watched instances that are errored now. They stay so for their whole retention.",
            f'sum(cloudflare_workflow_instance_status{{{_IN}, status="errored"}})',
            colours=_BAD,
        ),
        stat(
            "Running",
            "Instances that run now, as Cloudflare counts them.",
            f'sum(cloudflare_workflow_instances{{{_IN}, status="running"}})',
        ),
        stat(
            "Queued",
            "Instances that wait to be started, as Cloudflare counts them.",
            f'sum(cloudflare_workflow_instances{{{_IN}, status="queued"}})',
        ),
        stat(
            "Finished runs",
            "Runs that ended in the time shown, however they did.",
            f"sum(increase({_RUNS}}}[$__range]))",
        ),
        stat(
            "Error ratio",
            "Share of the runs that ended errored in the time shown; terminated ones don't count.",
            f'sum(increase({_RUNS}, status="errored"}}[$__range])) '
            f'/ sum(increase({_RUNS}, status=~"complete|errored"}}[$__range]))',
            unit="percentunit",
            colours=thresholds((GREEN, None), (YELLOW, 0.01), (RED, 0.05)),
        ),
        stat(
            "Age of the figures",
            "Time since the last complete look at the workflow for which it is longest.",
            f"max(time() - (cloudflare_workflow_last_success_timestamp_seconds{{{_IN}}} > 0))",
            unit="s",
            colours=thresholds((GREEN, None), (YELLOW, 120), (RED, 600)),
        ),
        row("Runs"),
        series(
            "Instances by status",
            "As Cloudflare counts them, whether they are watched or not.",
            [
                query(
                    f"sum by (status) (cloudflare_workflow_instances"
                    f'{{{_IN}, status!~"complete|terminated"}})',
                    "{{status}}",
                )
            ],
            stacked=True,
        ),
        series(
            "Watched instances by status",
            "Those that have series of their own.",
            [
                query(
                    f"sum by (status) (cloudflare_workflow_instance_status{{{_IN}}})",
                    "{{status}}",
                )
            ],
            stacked=True,
        ),
        series(
            "Finished runs by status",
            "Runs that ended, a second.",
            [query(f"sum by (status) (rate({_RUNS}}}[$__rate_interval]))", "{{status}}")],
            unit="ops",
            stacked=True,
        ),
        series(
            "Error ratio by workflow",
            "Share of the runs that ended errored within an hour.",
            [
                query(
                    f'sum by (account, workflow) (rate({_RUNS}, status="errored"}}[1h])) '
                    "/ sum by (account, workflow) "
                    f'(rate({_RUNS}, status=~"complete|errored"}}[1h]))',
                    "{{workflow}}",
                )
            ],
            unit="percentunit",
        ),
        series(
            "Run duration",
            "From start to end of the runs that ended.",
            _quantiles("cloudflare_workflow_run_duration_seconds"),
            unit="s",
        ),
        series(
            "Time in the queue",
            "From queued to start of the runs that started.",
            _quantiles("cloudflare_workflow_queue_duration_seconds"),
            unit="s",
        ),
        row("Steps"),
        heatmap(
            "Step duration",
            "How long steps took, retries and the waits between them included.",
            "sum by (le) (increase(cloudflare_workflow_step_duration_seconds_bucket"
            f'{{{_IN}, step=~"$step", step_type="step"}}[$__rate_interval]))',
        ),
        heatmap(
            "Attempt duration",
            "How long single attempts took.",
            "sum by (le) (increase(cloudflare_workflow_step_attempt_duration_seconds_bucket"
            f'{{{_IN}, step=~"$step"}}[$__rate_interval]))',
        ),
        bars(
            "Slowest steps",
            "90% of them take no longer, in the time shown.",
            "topk(10, histogram_quantile(0.9, sum by (workflow, step, le) "
            "(increase(cloudflare_workflow_step_duration_seconds_bucket"
            f'{{{_IN}, step=~"$step", step_type="step"}}[$__range]))))',
            "{{workflow}}: {{step}}",
            unit="s",
        ),
        bars(
            "Steps that fail most",
            "Failed attempts in the time shown.",
            "topk(10, sum by (workflow, step) "
            "(increase(cloudflare_workflow_step_attempt_duration_seconds_count"
            f'{{{_IN}, step=~"$step", outcome="failure"}}[$__range])))',
            "{{workflow}}: {{step}}",
            unit="short",
        ),
        series(
            "Attempts by outcome",
            "Attempts that ended, a second.",
            [
                query(
                    "sum by (outcome) (rate(cloudflare_workflow_step_attempt_duration_seconds_count"
                    f'{{{_IN}, step=~"$step"}}[$__rate_interval]))',
                    "{{outcome}}",
                )
            ],
            unit="ops",
        ),
        series(
            "Attempts that a step takes",
            "Mean of the steps that ended.",
            [
                query(
                    "sum by (workflow) (rate(cloudflare_workflow_step_attempts_sum"
                    f'{{{_IN}, step=~"$step"}}[$__rate_interval])) '
                    "/ sum by (workflow) (rate(cloudflare_workflow_step_attempts_count"
                    f'{{{_IN}, step=~"$step"}}[$__rate_interval]))',
                    "{{workflow}}",
                )
            ],
        ),
        row("Instances"),
        table(
            "Errored",
            "The instances that ended last among those that are errored.",
            f"topk(50, cloudflare_workflow_instance_end_timestamp_seconds{{{_IN}}} * 1000 "
            "* on (account, workflow, instance_id) group_left (error_name, step) "
            f"cloudflare_workflow_instance_error_info{{{_IN}}})",
            {**_INSTANCE, "error_name": "Error", "step": "Step", "Value": "Ended"},
            unit="dateTimeAsIso",
        ),
        table(
            "Longest without progress",
            "Live instances that neither sleep nor wait for an event.",
            "topk(50, time() - "
            f"cloudflare_workflow_instance_last_change_timestamp_seconds{{{_IN}}} "
            "and on (account, workflow, instance_id) "
            f'cloudflare_workflow_instance_status{{{_IN}, status=~"{_LIVE}"}} == 1 '
            "unless on (account, workflow, instance_id) "
            "cloudflare_workflow_instance_current_step_start_timestamp_seconds"
            f'{{{_IN}, step_type=~"sleep|waitForEvent"}})',
            {**_INSTANCE, "Value": "Without progress"},
            unit="s",
            width=12,
        ),
        table(
            "Longest sleeping or waiting",
            "Instances in a sleep or waiting for an event.",
            "topk(50, time() - cloudflare_workflow_instance_current_step_start_timestamp_seconds"
            f'{{{_IN}, step_type=~"sleep|waitForEvent"}})',
            {**_INSTANCE, "step": "Step", "step_type": "Kind", "Value": "Waiting"},
            unit="s",
            width=12,
        ),
        table(
            "Most attempts of an open step",
            "A retry inside a step shows within poll.detail_refresh.",
            f"topk(50, cloudflare_workflow_instance_current_step_attempts{{{_IN}}} > 0)",
            {**_INSTANCE, "step": "Step", "Value": "Attempts"},
            width=12,
        ),
        table(
            "Most steps",
            "Live instances; Cloudflare ends them with an error at their limit.",
            f"topk(50, cloudflare_workflow_instance_step_count{{{_IN}}} "
            "unless on (account, workflow, instance_id) "
            f"cloudflare_workflow_instance_end_timestamp_seconds{{{_IN}}})",
            {**_INSTANCE, "Value": "Steps"},
            width=12,
        ),
    ]
    step = label_variable(
        "step", "Step", f"cloudflare_workflow_step_duration_seconds_count{{{_IN}}}"
    )
    return dashboard(
        "cloudflare-workflows",
        "Cloudflare Workflows",
        "What the workflows do: which instances errored, hang or retry, and how long runs and "
        "steps take.",
        [*_VARIABLES, step],
        panels,
    )


def exporter() -> Json:
    """How well the exporter sees them."""
    own = "cloudflare_workflows_exporter"
    join = f"on (job, instance) group_left () max by (job, instance) ({own}_build_info)"
    panels = [
        stat(
            "Exporters",
            "Exporters that Prometheus reaches, by version.",
            f"count by (version) ({own}_build_info)",
            legend="{{version}}",
        ),
        stat(
            "Workflows that fail",
            "Workflows whose last round failed.",
            f"count(cloudflare_workflow_up{{{_IN}}} == 0) or vector(0)",
            colours=_BAD,
        ),
        stat(
            "Age of the figures",
            "Time since the last complete look at the workflow for which it is longest.",
            f"max(time() - (cloudflare_workflow_last_success_timestamp_seconds{{{_IN}}} > 0))",
            unit="s",
            colours=thresholds((GREEN, None), (YELLOW, 120), (RED, 600)),
        ),
        stat(
            "Lag",
            "How far behind its plan the oldest due look is.",
            f"max({own}_poll_lag_seconds)",
            unit="s",
            colours=thresholds((GREEN, None), (YELLOW, 30), (RED, 120)),
        ),
        stat(
            "Limit left",
            "Share of Cloudflare's 5-minute limit that is left, over everything the user runs.",
            f'min({own}_api_ratelimit_remaining{{account=~"$account"}} '
            f'/ {own}_api_ratelimit_limit{{account=~"$account"}})',
            unit="percentunit",
            colours=thresholds((RED, None), (YELLOW, 0.1), (GREEN, 0.25)),
        ),
        stat(
            "Blocked for",
            "How long Cloudflare refuses further calls, after a 429.",
            f'max(clamp_min({own}_api_blocked_until_timestamp_seconds{{account=~"$account"}} '
            "- time(), 0))",
            unit="s",
            colours=_BAD,
        ),
        row("Cloudflare's API"),
        series(
            "Calls in 5 minutes",
            "By account, beside the limit of the user.",
            [
                query(
                    f'sum by (account) (increase({own}_api_requests_total{{account=~"$account"}}'
                    "[5m]))",
                    "{{account}}",
                ),
                query(f'{own}_api_ratelimit_limit{{account=~"$account"}}', "limit of {{account}}"),
            ],
        ),
        series(
            "Left of the limit",
            "Calls that the user has left, as Cloudflare's last answer said.",
            [query(f'{own}_api_ratelimit_remaining{{account=~"$account"}}', "{{account}}")],
        ),
        series(
            "Calls by answer",
            "Calls a second by HTTP status, or by what went wrong instead.",
            [
                query(
                    "sum by (code) "
                    f'(rate({own}_api_requests_total{{account=~"$account"}}[$__rate_interval]))',
                    "{{code}}",
                )
            ],
            unit="reqps",
            stacked=True,
        ),
        series(
            "Time that calls take",
            "90% of the calls to an endpoint take no longer.",
            [
                query(
                    "histogram_quantile(0.9, sum by (endpoint, le) "
                    f"(rate({own}_api_request_duration_seconds_bucket[$__rate_interval])))",
                    "{{endpoint}}",
                )
            ],
            unit="s",
        ),
        row("Looks"),
        series(
            "Looks by kind and result",
            "Looks and lists, a second.",
            [
                query(
                    f"sum by (kind, result) (rate({own}_polls_total[$__rate_interval])) > 0",
                    "{{kind}}: {{result}}",
                )
            ],
            unit="ops",
        ),
        series(
            "Lag",
            "How far behind its plan the oldest due look is.",
            [query(f"{own}_poll_lag_seconds", "{{instance}}")],
            unit="s",
        ),
        series(
            "Age of the figures by workflow",
            "Time since the last complete look.",
            [
                query(
                    f"time() - (cloudflare_workflow_last_success_timestamp_seconds{{{_IN}}} > 0)",
                    "{{workflow}}",
                )
            ],
            unit="s",
        ),
        series(
            "Watched instances",
            "Instances that the exporter watches and found.",
            [
                query(
                    f"sum by (account, workflow) (cloudflare_workflow_watched_instances{{{_IN}}})",
                    "{{workflow}}",
                )
            ],
            stacked=True,
        ),
        series(
            "Left out",
            "What a limit of the configuration or the budget left out, in an hour.",
            [
                query(f"increase({own}_instances_dropped_total[1h])", "instances"),
                query(f"increase({own}_step_names_dropped_total[1h])", "step names"),
                query(
                    f"sum(increase(cloudflare_workflow_details_skipped_total{{{_IN}}}[1h]))",
                    "runs without steps",
                ),
            ],
        ),
        row("Process"),
        series(
            "Series",
            "Samples in a scrape.",
            [query(f"scrape_samples_scraped * {join}", "{{instance}}")],
        ),
        series(
            "Scrape duration",
            "How long Prometheus' scrapes take.",
            [query(f"scrape_duration_seconds * {join}", "{{instance}}")],
            unit="s",
        ),
        series(
            "Memory",
            "Resident memory.",
            [query(f"process_resident_memory_bytes * {join}", "{{instance}}")],
            unit="bytes",
        ),
        series(
            "CPU",
            "Cores in use.",
            [
                query(
                    f"rate(process_cpu_seconds_total[$__rate_interval]) * {join}",
                    "{{instance}}",
                )
            ],
        ),
    ]
    return dashboard(
        "cloudflare-workflows-exporter",
        "Cloudflare Workflows exporter",
        "How well the exporter sees: the budget of calls, lag, errors, and how old figures are.",
        _VARIABLES,
        panels,
    )


def outputs() -> dict[Path, str]:
    """Each generated file with its content."""
    texts = {
        f"{made['uid']}.json": json.dumps(made, indent=2) + "\n" for made in (fleet(), exporter())
    }
    return {
        folder / name: text
        for folder in (FOLDER, CHART / "files" / "dashboards")
        for name, text in texts.items()
    }
