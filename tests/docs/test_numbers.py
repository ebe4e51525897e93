"""Numbers in prose are those of the code, the rules and the settings."""

import importlib
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
import pytest

from exporter.config.accounts import Discover
from exporter.config.settings import leaves
from exporter.web.connection_limits import ConnectionLimits
from exporter.web.metrics_endpoint import MAX_SCRAPES
from exporter.web.middleware import MAX_HEAD_SIZE, MAX_HEADERS
from tools import ROOT

PARAMETERS = msgspec.yaml.decode((ROOT / "alerts" / "parameters.yaml").read_text())
GROUPS = msgspec.yaml.decode((ROOT / "alerts" / "prometheus.rules.yaml").read_text())["groups"]
RULES = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
# Of each runbook: what it says of a threshold, the parameter, and its default.
THRESHOLDS = [
    ("CloudflareWorkflowDataStale", "more than 10 minutes old", "staleAfterSeconds", 600),
    ("CloudflareWorkflowErrorBudgetBurn", "its error budget, 1% of", "errorBudget", 0.01),
    ("CloudflareWorkflowInstanceErrored", "an hour after", "erroredForSeconds", 3600),
    ("CloudflareWorkflowInstanceStuck", "has not changed for an hour", "stuckAfterSeconds", 3600),
    ("CloudflareWorkflowInstanceWaitingLong", "two days", "waitingAfterSeconds", 172800),
    ("CloudflareWorkflowInstancesErrored", "Ten or more", "erroredInstances", 10),
    ("CloudflareWorkflowInstancesErrored", "within the last hour", "erroredForSeconds", 3600),
    ("CloudflareWorkflowNearConcurrencyLimit", "runs 90%", "concurrencyRatio", 0.9),
    ("CloudflareWorkflowNearConcurrencyLimit", "Limit` (10)", "concurrencyMinLimit", 10),
    ("CloudflareWorkflowNearStepLimit", "used 90%", "stepLimitRatio", 0.9),
    ("CloudflareWorkflowQueueBacklog", "More than 100", "queuedInstances", 100),
    ("CloudflareWorkflowQueueSlow", "more than 5 minutes", "queueSeconds", 300),
    ("CloudflareWorkflowRetryStorm", "More than half", "retryStormRatio", 0.5),
    ("CloudflareWorkflowRetryStorm", "at least 20", "retryStormAttempts", 20),
    ("CloudflareWorkflowStepRetrying", "fifth attempt or later", "stepAttempts", 5),
    ("CloudflareWorkflowsExporterLagging", "more than 2 minutes late", "lagSeconds", 120),
]
# What a runbook says of how long a condition holds before the alert fires.
PERIODS = [
    ("CloudflareWorkflowPollsFailing", "for 30 minutes", "30m"),
    ("CloudflareWorkflowUpdatesFailing", "For 10 minutes", "10m"),
    ("CloudflareWorkflowsExporterDown", "for 5 minutes", "5m"),
    ("CloudflareWorkflowQueueBacklog", "for 15 minutes", "15m"),
]
# What pages say of the defaults of settings.
DEFAULTS = [
    ("README.md", "At most 600 of", "api.requests_per_5m", 600),
    ("docs/getting-started.md", "sends at most 600", "api.requests_per_5m", 600),
    ("docs/faq.md", "Why 600 requests", "api.requests_per_5m", 600),
    ("docs/how-it-works.md", "With 600 requests", "api.requests_per_5m", 600),
    ("docs/how-it-works.md", "`api.reserve`, 20%", "api.reserve", 0.2),
    ("docs/operating.md", "`api.reserve` leaves 240 of", "api.reserve", 0.2),
    ("docs/how-it-works.md", "`api.max_body` (256 MiB)", "api.max_body", 256 * 1024**2),
    (
        "docs/operating.md",
        "`metrics.step_names.limit` step names (200)",
        "metrics.step_names.limit",
        200,
    ),
    ("docs/operating.md", "`state.path` (`state.db`)", "state.path", "state.db"),
]
DISCOVERED = [
    ("README.md", "up to 5,000 per workflow", "max_instances", "5000"),
    ("README.md", "from a minute after their creation", "min_age", "1m"),
    ("README.md", "and then for a day", "max_age", "1d"),
    ("docs/operating.md", "`discover.max_instances` (5,000 per workflow)", "max_instances", "5000"),
    ("docs/faq.md", "`discover.min_age` (1m)", "min_age", "1m"),
]
LIMITS = [
    f"| connections | {ConnectionLimits.connections};",
    f"| request | {MAX_HEAD_SIZE // 1024} KiB and {MAX_HEADERS} headers;",
    f"| TLS handshake | {ConnectionLimits.request} s |",
    f"| until the request is complete | {ConnectionLimits.request} s |",
    f"| until the response is read | {ConnectionLimits.response} s,",
    f"| responses that wait for their readers | {ConnectionLimits.unread} |",
    f"| scrapes at a time | {MAX_SCRAPES};",
    f"| between requests | {ConnectionLimits.idle} s |",
]


# What docs/how-it-works.md and docs/operating.md say of constants, and the module that has them.
CONSTANTS = [
    ("how-it-works", "list pages of 100 rows", "watch.list_reader", (100, 50, 25, 10)),
    ("how-it-works", "every 30 s at most", "watch.watched_account", 30),
    ("how-it-works", "every hour at most", "watch.watched_account", 3600),
    ("how-it-works", "within 45 s of its start", "instances.urgency", 45),
    ("how-it-works", "in any 5 minutes", "cloudflare.budget", 300),
    ("how-it-works", "its highest of the last 10 minutes", "cloudflare.budget", 600),
    ("how-it-works", "fewer than 10 requests are left", "cloudflare.budget", 10),
    ("how-it-works", "`Retry-After` (an hour at most", "cloudflare.response_headers", 3600),
    ("how-it-works", "is deleted after 7 days", "state.writer", 7 * 86400),
    ("how-it-works", "Once a second, one transaction", "state.writer", 1),
    ("how-it-works", "A detail response above 256 KiB", "instances.poll_pauses", 256 * 1024),
    ("how-it-works", "an hour at most. Meanwhile", "instances.poll_pauses", 3600),
    ("how-it-works", "blocks of 64 instances", "metrics.render_cache", 64),
    ("how-it-works", "At most 8 scrapes", "web.metrics_endpoint", 8),
    ("how-it-works", "200 instances a page", "web.page.instance_table", 200),
    ("how-it-works", "the latest 50 that finished", "instances.timeline", 50),
    ("glossary", "nothing changed for an hour", "web.page.view", 3600),
    ("operating", "come back within 7 days", "instances.state_records", 7 * 86400),
    ("operating", "at most once in 5 minutes", "log_dedup", 300),
    ("operating", "with status 0 within 5 s", "watch.watched_accounts", 3),
]


@cache
def page(name: str) -> str:
    """A page's text on one line."""
    return " ".join((ROOT / name).read_text().split())


def by_alert(rows: Iterable[tuple[Any, ...]]) -> list[str]:
    return [f"{row[0]}: {row[1]}" for row in rows]


@pytest.mark.parametrize(
    ("alert", "text", "parameter", "default"), THRESHOLDS, ids=by_alert(THRESHOLDS)
)
def test_a_threshold_is_that_of_the_rules(
    alert: str, text: str, parameter: str, default: float
) -> None:
    assert text in page(f"docs/runbooks/{alert}.md")
    assert PARAMETERS[parameter]["default"] == default


@pytest.mark.parametrize(("alert", "text", "period"), PERIODS, ids=by_alert(PERIODS))
def test_a_period_is_that_of_the_rule(alert: str, text: str, period: str) -> None:
    assert text in page(f"docs/runbooks/{alert}.md")
    assert RULES[alert]["for"] == period


@pytest.mark.parametrize(("name", "text", "key", "default"), DEFAULTS, ids=by_alert(DEFAULTS))
def test_a_default_is_that_of_the_setting(name: str, text: str, key: str, default: object) -> None:
    assert text in page(name)
    defaults = {".".join(loc): field.default for loc, field in leaves()}
    assert str(defaults[key]) == str(default) or defaults[key] == default


@pytest.mark.parametrize(("name", "text", "key", "default"), DISCOVERED, ids=by_alert(DISCOVERED))
def test_a_default_is_that_of_the_selector(name: str, text: str, key: str, default: str) -> None:
    assert text in page(name)
    assert str(getattr(Discover(), key)) == default


@pytest.mark.parametrize(("name", "text", "module", "value"), CONSTANTS, ids=by_alert(CONSTANTS))
def test_a_number_is_a_constant_of_the_module(
    name: str, text: str, module: str, value: object
) -> None:
    assert text in page(f"docs/{name}.md")
    constants = vars(importlib.import_module(f"exporter.{module}")).items()
    assert value in [of for constant, of in constants if constant.isupper()]


@pytest.mark.parametrize("row", LIMITS)
def test_a_limit_of_the_web_server_is_that_of_the_code(row: str) -> None:
    assert row in page("docs/security.md")


def test_the_size_of_the_largest_group_of_rules_is_that_of_the_file() -> None:
    largest = max(len(group["rules"]) for group in GROUPS)
    assert f"A group of this file has up to {largest}" in page("docs/collectors.md")


@pytest.mark.parametrize(
    ("file", "limit"),
    [
        ("helm/cloudflare-workflows-exporter/values.yaml", "memory: 512Mi"),
        ("deploy/systemd/cloudflare-workflows-exporter.service", "MemoryMax=512M"),
        ("deploy/compose/compose.yaml", "mem_limit: 512m"),
    ],
)
def test_the_limit_of_memory_is_that_of_each_way_to_run_it(file: str, limit: str) -> None:
    assert "limit memory to 512 MiB" in page("docs/operating.md")
    assert limit in page(file)


def test_the_pages_name_the_alerts_without_counting_them() -> None:
    counted = re.compile(r"\b\d+ (alerts|rules|metrics|dashboards)\b")
    for name in ("README.md", "docs/alerting.md", "docs/metrics.md", "docs/kubernetes.md"):
        assert not counted.search(page(name)), name
