"""The catalogue of all metrics: name, type, help, labels, exemplars, buckets, and the series that
exist from the start. The exposition and docs/metrics.md are generated from it. To add a metric, add
an entry here and set its value in `store.py`, or for an instance in `instance_samples.py`."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, get_args

from exporter.cloudflare.errors import FAILURE_REASONS
from exporter.statuses import ENDED, STATUSES

Kind = Literal["gauge", "counter", "histogram", "info", "unknown"]
_KINDS: dict[str, Kind] = {"total": "counter", "info": "info"}


class WorkflowKey(NamedTuple):
    """A workflow as the labels name it."""

    account: str
    workflow: str


WORKFLOW_LABELS = WorkflowKey._fields
INSTANCE_LABELS = (*WORKFLOW_LABELS, "instance_id")

FINISHED_OUTCOMES = ("success", "failure")
"""Outcomes of a finished step or attempt. Once a step's name is known, series exist for both."""
OUTCOMES = (*FINISHED_OUTCOMES, "running")
"""Outcomes of any step or attempt."""
EventResult = Literal["shown", "known", "listed", "unconfirmed", "other", "unreadable"]
"""Results of messages: a poll showed the change; it was known before; it is left to the list
passes; no poll showed it; its instance isn't watched; the message can't be read."""
PollKind = Literal["simple", "detail", "list"]
_ENDINGS = tuple(sorted(ENDED))
_ENDPOINTS = ("instance", "instances", "workflow", "workflows", "versions")
CODES = ("200", "401", "403", "404", "429", "500", "timeout")
QUEUE_ENDPOINTS = ("pull", "ack")
"""Further endpoints of an account that has events; their series exist from its start, too."""


@dataclass(frozen=True, eq=False)
class Family:
    """A metric family.

    Attributes:
        name: The name of its samples, including `_total` of a counter and `_info` of an info.
        kind: Its type. `unknown` is a gauge whose name ends in `_count`, which Prometheus' lint
            reserves for histograms.
        help: What the value means, and the field of Cloudflare's API that it comes from.
        labels: All label names, in order.
        states: If its series are the states of one thing: all known values of the last label. A
            sample of one state then also shows the other states at 0.
        exemplars: Whether OpenMetrics shows the id of the last counted instance, as an exemplar.
        zeros: Its series that exist at 0 before anything happens, since `increase()` ignores the
            first value of a series: the known values of each label but `account` and `workflow`, in
            all combinations. None: its series begin later.
        buckets: The upper bounds of a histogram's buckets. Those of workflows are configured
            (`metrics.buckets`).
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    states: tuple[str, ...] = ()
    exemplars: bool = False
    zeros: tuple[tuple[str, ...], ...] | None = None
    buckets: tuple[float, ...] = ()

    @property
    def of_workflow(self) -> bool:
        """Whether each of its series belongs to a workflow."""
        return self.owner_labels == len(WORKFLOW_LABELS)

    @cached_property
    def owner_labels(self) -> int:
        """How many labels, the first ones, name the workflow or the account that a series belongs
        to; 0 if it belongs to the process."""
        return sum(label in WORKFLOW_LABELS for label in self.labels)

    @property
    def counts_of_workflow(self) -> bool:
        """Whether it counts what happened in a workflow: each event once, through restarts."""
        return self.of_workflow and self.kind in ("counter", "histogram")


def _family(
    prefix: str,
    common_labels: tuple[str, ...],
    name: str,
    help_: str,
    labels: str = "",
    *,
    kind: Kind | None = None,
    note: str = "",
    **options: Any,
) -> Family:
    """A family; unless `kind` says otherwise, its type follows from its name."""
    kind = kind or _KINDS.get(name.rpartition("_")[2], "gauge")
    all_labels = (*common_labels, *labels.split())
    return Family(prefix + name, kind, help_ + note, all_labels, **options)


_AS_OF = " As of its last poll or list row."
_instance = partial(_family, "cloudflare_workflow_instance_", INSTANCE_LABELS, note=_AS_OF)
_of_steps = partial(_instance, note=" As of its last detail response.")
_workflow = partial(_family, "cloudflare_workflow_", WORKFLOW_LABELS)
_histogram = partial(_workflow, kind="histogram", exemplars=True)
_own = partial(_family, "cloudflare_workflows_exporter_", ())

# Instances.
STATUS = _instance(
    "status",
    "1 for the current status (API: status), 0 for each other known status.",
    "status",
    states=STATUSES,
)
INFO = _instance(
    "info",
    "Version (API: versionId) and what triggered the instance (API: trigger.source).",
    "version_id trigger",
)
ERROR_INFO = _of_steps(
    "error_info",
    "1 while the instance has an error (API: error.name, or the failing step's error where that "
    "is only Error); step is the step that failed, or empty.",
    "error_name step",
)
STEP_COUNT = _instance(
    "step_count", "Steps, sleeps and waits started so far (API: step_count).", kind="unknown"
)
STEPS = _of_steps(
    "steps", "Steps by type and outcome (API: steps); running: not finished.", "step_type outcome"
)
ATTEMPTS = _of_steps(
    "attempts",
    "Attempts of all steps by outcome (API: steps[].attempts); running: without an end.",
    "outcome",
)
RETRIES = _of_steps("retries", "Attempts after each step's first (API: steps[].attempts).")
CURRENT_STEP_ATTEMPTS = _of_steps(
    "current_step_attempts",
    "Attempts so far of each open step (API: steps[].attempts), added over parallel steps of one "
    "name; 0 for a sleep or wait.",
    "step step_type",
)
CURRENT_STEP_START = _of_steps(
    "current_step_start_timestamp_seconds",
    "Unix time at which each open step started (API: steps[].start).",
    "step step_type",
)
CURRENT_STEP_RETRY_LIMIT = _of_steps(
    "current_step_retry_limit",
    "Retry limit of each open step but sleeps and waits (API: steps[].config.retries.limit), added "
    "as attempts are; +Inf without a limit. A step is at its last attempt when "
    "current_step_attempts exceeds it.",
    "step",
)
QUEUED = _instance(
    "queued_timestamp_seconds", "Unix time at which the run was queued (API: queued)."
)
START = _instance("start_timestamp_seconds", "Unix time at which the run started (API: start).")
END = _instance("end_timestamp_seconds", "Unix time at which the run ended (API: end).")
QUEUE_DURATION = _instance(
    "queue_duration_seconds", "Seconds from queued to start of the run (API: start - queued)."
)
RUN_DURATION = _instance(
    "run_duration_seconds",
    "Seconds from start to end of an ended run (API: end - start). For the age of a live run, use "
    "time() - cloudflare_workflow_instance_start_timestamp_seconds.",
)
LAST_CHANGE = _instance(
    "last_change_timestamp_seconds",
    "Unix time at which the exporter last saw a change of the instance, or first saw it.",
)

# Workflows.
INSTANCES = _workflow(
    "instances",
    "Instances by status as Cloudflare counts them (API: instances of the workflow), as of the "
    "account's last list of workflows.",
    "status",
)
STEP_LIMIT = _workflow(
    "step_limit", "Maximum steps of an instance (API: limits.steps of the newest version)."
)
CONCURRENCY_LIMIT = _workflow(
    "concurrency_limit",
    "Maximum instances running at once (API: concurrency.limit of the newest version).",
)
WATCHED = _workflow(
    "watched_instances",
    "Instances that the exporter watches, with or without series of their own, by status.",
    "status",
    zeros=(STATUSES,),
)
RUNS_FINISHED = _workflow(
    "runs_finished_total",
    "Finished runs by final status (API: status); each is counted once.",
    "status",
    exemplars=True,
    zeros=(_ENDINGS,),
)
RUN_DURATIONS = _histogram(
    "run_duration_seconds",
    "Seconds from start to end of finished runs (API: end - start).",
    "status",
    zeros=(_ENDINGS,),
)
QUEUE_DURATIONS = _histogram(
    "queue_duration_seconds",
    "Seconds from queued to start of started runs (API: start - queued).",
    zeros=(),
)
STEP_DURATIONS = _histogram(
    "step_duration_seconds",
    "Seconds from start to end of finished steps, sleeps and waits, including retries and the "
    "delays between them (API: steps[].end - start).",
    "step step_type outcome",
)
ATTEMPT_DURATIONS = _histogram(
    "step_attempt_duration_seconds",
    "Seconds from start to end of finished attempts (API: steps[].attempts[].end - start).",
    "step outcome",
)
STEP_ATTEMPTS = _histogram(
    "step_attempts", "Attempts of finished steps (API: steps[].attempts).", "step outcome"
)
DETAILS_SKIPPED = _workflow(
    "details_skipped_total",
    "Finished runs whose steps were not fetched after their end, for lack of request budget.",
    zeros=(),
)
FAILING = _workflow(
    "failing_instances",
    "Instances whose last poll failed, by class of failure. Each is polled again with growing "
    "pauses, up to `poll.ended_interval`; until then its series keep the last known values.",
    "result",
    zeros=(FAILURE_REASONS,),
)
UP = _workflow(
    "up",
    "0 when the workflow as a whole can't be read: its last list pass failed, or every poll of its "
    "last round did. 1 otherwise, also when some of its instances fail.",
    zeros=(),
)
DATA_TIME = _workflow(
    "data_timestamp_seconds",
    "Unix time as of which the statuses of 99% of the live instances are known, but for those "
    "whose polls fail. After a failed list pass, no later than the start of the last one that "
    "succeeded; before the first, the exporter's start. `time()` minus this is the data's age.",
)
STEPS_TIME = _workflow(
    "steps_data_timestamp_seconds",
    "Unix time as of which the steps of 99% of the live instances with series are known; where "
    "they were never fetched, when the instance was created.",
)
LAST_SUCCESS = _workflow(
    "last_success_timestamp_seconds",
    "Unix time at which a poll round over the workflow last succeeded; 0: never.",
    zeros=(),
)
BACKFILL_TIME = _workflow(
    "backfill_timestamp_seconds",
    "Unix time at which history was last counted (`metrics.backfill`): of a configured instance "
    "whose run had ended or, if it is live, was queued an hour or more before its first poll, or "
    "of one whose run had ended or, if it is live, started before the workflow was discovered.",
)

# The exporter itself.
BUILD_INFO = _own("build_info", "Versions of the exporter and of Python.", "version python_version")
CONFIG_SUCCESSFUL = _own(
    "config_last_reload_successful", "1 when the last load of the configuration succeeded."
)
CONFIG_SUCCESS_TIME = _own(
    "config_last_reload_success_timestamp_seconds",
    "Unix time at which the configuration was last loaded successfully.",
)
API_REQUESTS = _own(
    "api_requests_total",
    "Requests to Cloudflare's API by endpoint and HTTP status; the code is timeout, dns, "
    "connection, invalid or cancelled where there was no usable response.",
    "account endpoint code",
    zeros=(_ENDPOINTS, CODES),
)
API_DURATION = _own(
    "api_request_duration_seconds",
    "Seconds that requests to Cloudflare's API took.",
    "endpoint",
    kind="histogram",
    zeros=(_ENDPOINTS,),
    # A request takes 50 to 500 ms; api.timeout bounds it.
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
API_LIMIT = _own(
    "api_ratelimit_limit",
    "Requests that Cloudflare allows the credential's user in 5 minutes (API: Ratelimit-Policy).",
    "account",
)
API_REMAINING = _own(
    "api_ratelimit_remaining",
    "Requests that the credential's user has left, as of the last response (API: Ratelimit).",
    "account",
)
API_BLOCKED_UNTIL = _own(
    "api_blocked_until_timestamp_seconds",
    "Unix time until which no requests are sent, after a 429 (API: Retry-After) or with fewer than "
    "10 requests left; 0: not blocked.",
    "account",
)
POLLS = _own(
    "polls_total",
    "Requests for polls and lists by kind and result: success or the class of failure.",
    "kind result",
    zeros=(get_args(PollKind), ("success", *FAILURE_REASONS)),
)
POLL_LAG = _own(
    "poll_lag_seconds",
    "Seconds by which the most overdue poll or list pass is late. Steps that can wait don't count: "
    "cloudflare_workflow_steps_data_timestamp_seconds says how old they are.",
)
INSTANCES_DROPPED = _own(
    "instances_dropped_total",
    "Discovered instances without series, because their workflow is at discover.max_instances.",
    zeros=(),
)
ROWS_IGNORED = _own(
    "rows_ignored_total",
    "List rows without a status or a valid id, and unreadable parts of responses, counted in each "
    "response. The rest of the response is used.",
    zeros=(),
)
STEP_NAMES_DROPPED = _own(
    "step_names_dropped_total",
    "Finished steps and attempts counted as step=other, because their workflow is at "
    "metrics.step_names.limit.",
    zeros=(),
)

STATE_WRITE_ERRORS = _own(
    "state_write_errors_total",
    "Failed attempts to write or use the state since the start.",
    zeros=(),
)

REPLICAS = _own("replicas", "Live replicas that this one sees in the database.")
WORKFLOWS_HELD = _own("workflows_held", "Workflows that this replica watches.")
WORKFLOWS_UNHELD = _own(
    "workflows_unheld",
    "Workflows to be watched that no live replica holds, as this one sees it in the database.",
)
LEASES_LOST = _own(
    "leases_lost_total",
    "Workflows, and queues of events, that other replicas took over, since this one could not "
    "renew its lease in time.",
    zeros=(),
)
EVENTS = _own(
    "events_total",
    "Messages of the account's queue by type of event and result: shown by a poll, known before, "
    "listed (left to the list passes), unconfirmed by any poll, other (not watched), or "
    "unreadable. Only with `accounts[].events`.",
    "account type result",
)
EVENT_BACKLOG = _own(
    "event_queue_backlog",
    "Messages in the account's queue as of the last pull, roughly (API: message_backlog_count); of "
    "several replicas the one that pulls shows it.",
    "account",
)
EVENT_DELAY = _own(
    "event_delay_seconds",
    "Seconds from the time of an event (API: eventTimestamp) until what it announced was shown.",
    kind="histogram",
    buckets=(1, 2, 5, 10, 30, 60, 120, 300, 600),
)
EVENT_COVERAGE = _own(
    "event_coverage_ratio",
    "Share of the changes which list passes found in the last hour that an event had announced.",
    "account",
)

FAMILIES: tuple[Family, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Family)
)
"""All families, in the order of their definition."""

CURRENT_STATUS = replace(STATUS, states=())
"""`STATUS` with the current status alone."""
