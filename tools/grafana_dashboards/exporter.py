"""The dashboard of the exporter's health: how well it sees the workflows."""

from tools.grafana_dashboards.common import AGE, BAD, BY, DEFAULTS, NONE, UNKNOWN, age
from tools.grafana_dashboards.dashboard import annotation, dashboard, label_variable
from tools.grafana_dashboards.panels import (
    GREEN,
    RED,
    WIDTH,
    YELLOW,
    Json,
    query,
    row,
    series,
    stat,
    table,
    thresholds,
)

_OWN = "cloudflare_workflows_exporter"
_TARGET = 'job=~"$job", instance=~"$instance"'
_NO_EVENTS = "No events configured"
_NO_REPLICAS = "No database is shared"


def board() -> Json:
    at = f"{{{_TARGET}}}"
    join = f"* on (job, instance) group_left () max by (job, instance) ({_OWN}_build_info{at})"
    remaining = f"{_OWN}_api_ratelimit_remaining{at}"
    limit = f"{_OWN}_api_ratelimit_limit{at}"

    def rate(name: str, labels: str = "", more: str = "") -> str:
        of = f"rate({_OWN}_{name}{{{_TARGET}{more}}}[$__rate_interval])"
        return f"sum by ({labels}) ({of})"

    def process(title: str, help_: str, expr: str, unit: str = "short") -> Json:
        return series(title, help_, [query(f"{expr} {join}", "{{instance}}")], NONE, unit=unit)

    lag = thresholds(
        (GREEN, None), (YELLOW, DEFAULTS["lagSeconds"] / 4), (RED, DEFAULTS["lagSeconds"])
    )
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
            f"sum(cloudflare_workflow_up{at} == bool 0)",
            UNKNOWN,
            colours=BAD,
        ),
        stat(
            "Instances that fail",
            "Instances whose last poll failed.",
            f"sum(cloudflare_workflow_failing_instances{at})",
            UNKNOWN,
            colours=BAD,
        ),
        stat(
            "Lag",
            "Time by which the most overdue poll or list pass is late.",
            f"max({_OWN}_poll_lag_seconds{at})",
            UNKNOWN,
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
            UNKNOWN,
            unit="s",
            colours=BAD,
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
            NONE,
            unit="s",
            limits=lag,
        ),
        series(
            "Age of the data by workflow",
            "Age of the data shown.",
            [query(age(_TARGET), "{{account}} {{workflow}}")],
            UNKNOWN,
            unit="s",
            limits=AGE,
        ),
        series(
            "Age of the steps by workflow",
            "Age of the steps of live instances with series.",
            [query(age(_TARGET, "steps_data"), "{{account}} {{workflow}}")],
            UNKNOWN,
            unit="s",
        ),
        series(
            "Watched instances",
            "Instances that the exporter watches, with or without series of their own.",
            [
                query(
                    f"sum by ({BY}) (cloudflare_workflow_watched_instances{at})",
                    "{{account}} {{workflow}}",
                )
            ],
            NONE,
            stacked=True,
        ),
        series(
            "Failing instances",
            "Instances whose last poll failed, by class of failure.",
            [
                query(
                    f"sum by ({BY}, result) (cloudflare_workflow_failing_instances{at}) > 0",
                    "{{account}} {{workflow}}: {{result}}",
                )
            ],
            NONE,
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
            width=WIDTH,
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
            limits=BAD,
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
            NONE,
            limits=BAD,
        ),
        table(
            "Configuration",
            "When each exporter last loaded its configuration successfully.",
            f"{_OWN}_config_last_reload_success_timestamp_seconds{at} * 1000",
            {"instance": "Exporter", "job": "Job", "Value": "Loaded"},
            NONE,
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
