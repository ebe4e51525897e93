"""Every metric, once: name, type, help, labels. The exposition and the reference page in the docs
both come from here. To add one: an entry here, and a line where it is filled (`store.py`, of
instances `instances.py`)."""

from dataclasses import dataclass, replace
from typing import Literal

from exporter.cloudflare.errors import FAILURE_REASONS
from exporter.statuses import STATUSES

Kind = Literal["gauge", "counter", "histogram", "info", "unknown"]

WORKFLOW_LABELS = ("account", "workflow")
INSTANCE_LABELS = (*WORKFLOW_LABELS, "instance_id")


@dataclass(frozen=True, eq=False)
class Family:
    """A metric family.

    Attributes:
        name: As samples are named, with a counter's `_total` and an info's `_info`.
        kind: Its type. `unknown` is a gauge whose name's ending Prometheus' lint keeps for
            histograms.
        help: What it says, and which field of Cloudflare's API it comes from.
        labels: All label names, in order.
        states: Of a set of states, one of which is there at a time: all of its last label's known
            values. Those that a sample doesn't name are shown at 0.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    states: tuple[str, ...] = ()


def _instance(
    name: str, help_: str, *labels: str, kind: Kind = "gauge", states: tuple[str, ...] = ()
) -> Family:
    return Family(
        f"cloudflare_workflow_instance_{name}",
        kind,
        f"{help_} As of the last look at the instance.",
        (*INSTANCE_LABELS, *labels),
        states,
    )


def _workflow(name: str, kind: Kind, help_: str, *labels: str) -> Family:
    return Family(f"cloudflare_workflow_{name}", kind, help_, (*WORKFLOW_LABELS, *labels))


def _own(name: str, kind: Kind, help_: str, *labels: str) -> Family:
    return Family(f"cloudflare_workflows_exporter_{name}", kind, help_, labels)


# Instances: from the last full answer of each.
STATUS = _instance(
    "status",
    "1 for the instance's status (API: status), 0 for each other status known today.",
    "status",
    states=STATUSES,
)
INFO = _instance(
    "info",
    "Version (API: versionId) and what triggered the instance (API: trigger.source).",
    "version_id",
    "trigger",
    kind="info",
)
ERROR_INFO = _instance(
    "error_info",
    "1 while the instance has an error (API: error.name, or the failing step's where the engine "
    "flattened it to Error); step is the step it failed at, or empty.",
    "error_name",
    "step",
    kind="info",
)
STEP_COUNT = _instance(
    "step_count", "Steps, sleeps and waits begun so far (API: step_count).", kind="unknown"
)
STEPS = _instance(
    "steps",
    "Steps (API: steps) by type and outcome; running: not finished.",
    "step_type",
    "outcome",
)
ATTEMPTS = _instance(
    "attempts",
    "Attempts over all steps (API: steps[].attempts); running: without an end.",
    "outcome",
)
RETRIES = _instance("retries", "Attempts beyond each step's first (API: steps[].attempts).")
CURRENT_STEP_ATTEMPTS = _instance(
    "current_step_attempts",
    "Attempts so far of each step that is open now (API: steps[].attempts); 0 for a sleep or wait.",
    "step",
    "step_type",
)
CURRENT_STEP_START = _instance(
    "current_step_start_timestamp_seconds",
    "When each step that is open now started, in Unix time (API: steps[].start).",
    "step",
    "step_type",
)
CURRENT_STEP_RETRY_LIMIT = _instance(
    "current_step_retry_limit",
    "Attempts that each plain step that is open now may take after its first (API: "
    "steps[].config.retries.limit), +Inf without a limit. A step is at its last attempt when "
    "current_step_attempts exceeds it.",
    "step",
)
QUEUED = _instance(
    "queued_timestamp_seconds", "When the run was queued, in Unix time (API: queued)."
)
START = _instance("start_timestamp_seconds", "When the run started, in Unix time (API: start).")
END = _instance("end_timestamp_seconds", "When the run ended, in Unix time (API: end).")
QUEUE_DURATION = _instance(
    "queue_duration_seconds", "From queued to start of the run (API: start - queued)."
)
RUN_DURATION = _instance(
    "run_duration_seconds",
    "From start to end of the run (API: end - start), once it has ended; of a live one, "
    "time() - cloudflare_workflow_instance_start_timestamp_seconds tells the age.",
)
LAST_CHANGE = _instance(
    "last_change_timestamp_seconds",
    "When the exporter last saw the instance move, in Unix time; its first sight counts.",
)

# Workflows.
INSTANCES = _workflow(
    "instances",
    "gauge",
    "Instances by status as the platform counts them, up to half a minute late (API: workflow's "
    "instances).",
    "status",
)
STEP_LIMIT = _workflow(
    "step_limit", "gauge", "Steps an instance may have (API: newest version's limits.steps)."
)
CONCURRENCY_LIMIT = _workflow(
    "concurrency_limit",
    "gauge",
    "Instances that may run at once (API: newest version's concurrency.limit).",
)
WATCHED = _workflow(
    "watched_instances",
    "gauge",
    "Instances that the exporter found and watches, with series or without, by status.",
    "status",
)
RUNS_FINISHED = _workflow(
    "runs_finished_total",
    "counter",
    "Runs that ended, each counted once, by the status they ended with (API: status).",
    "status",
)
RUN_DURATIONS = _workflow(
    "run_duration_seconds",
    "histogram",
    "From start to end of finished runs (API: end - start).",
    "status",
)
QUEUE_DURATIONS = _workflow(
    "queue_duration_seconds",
    "histogram",
    "From queued to start of started runs (API: start - queued).",
)
STEP_DURATIONS = _workflow(
    "step_duration_seconds",
    "histogram",
    "How long finished steps, sleeps and waits took, retries and waits between them included "
    "(API: steps[].end - start).",
    "step",
    "step_type",
    "outcome",
)
ATTEMPT_DURATIONS = _workflow(
    "step_attempt_duration_seconds",
    "histogram",
    "How long finished attempts took (API: steps[].attempts[].end - start).",
    "step",
    "outcome",
)
STEP_ATTEMPTS = _workflow(
    "step_attempts",
    "histogram",
    "Attempts that finished steps took (API: steps[].attempts).",
    "step",
    "outcome",
)
DETAILS_SKIPPED = _workflow(
    "details_skipped_total",
    "counter",
    "Runs that ended and whose steps were never fetched, for lack of budget.",
)
FAILING = _workflow(
    "failing_instances",
    "gauge",
    "Instances whose last poll failed, by class of failure. Each is polled again with growing "
    "pauses, up to `poll.ended_interval`; meanwhile its series have the last known values.",
    "result",
)
UP = _workflow(
    "up",
    "gauge",
    "0 when the workflow as a whole can't be read: its last list pass failed, or every poll of its "
    "last round did. 1 otherwise, also when some of its instances fail.",
)
DATA_TIME = _workflow(
    "data_timestamp_seconds",
    "gauge",
    "Unix time as of which the status of the live instances is known (of 99% of them, and but for "
    "those that fail): their oldest last poll or row, or the start of the last list pass that "
    "succeeded, when one has failed since. Before the first, the exporter's start. `time()` minus "
    "this is the age of what is shown.",
)
LAST_SUCCESS = _workflow(
    "last_success_timestamp_seconds",
    "gauge",
    "When a round over the workflow last succeeded, in Unix time; 0: never yet.",
)

# The exporter itself.
BUILD_INFO = _own(
    "build_info", "info", "Version of the exporter and of Python.", "version", "python_version"
)
CONFIG_SUCCESSFUL = _own(
    "config_last_reload_successful", "gauge", "1 when the last load of the configuration succeeded."
)
CONFIG_SUCCESS_TIME = _own(
    "config_last_reload_success_timestamp_seconds",
    "gauge",
    "When the configuration was last loaded successfully, in Unix time.",
)
API_REQUESTS = _own(
    "api_requests_total",
    "counter",
    "Calls to Cloudflare's API by endpoint and HTTP status; timeout, connection, invalid or "
    "cancelled where there was none.",
    "account",
    "endpoint",
    "code",
)
API_DURATION = _own(
    "api_request_duration_seconds",
    "histogram",
    "How long calls to Cloudflare's API took.",
    "endpoint",
)
API_LIMIT = _own(
    "api_ratelimit_limit",
    "gauge",
    "Calls that Cloudflare allows the credential's user in 5 minutes (API: Ratelimit-Policy).",
    "account",
)
API_REMAINING = _own(
    "api_ratelimit_remaining",
    "gauge",
    "Calls that the credential's user has left, as the last answer told (API: Ratelimit).",
    "account",
)
API_BLOCKED_UNTIL = _own(
    "api_blocked_until_timestamp_seconds",
    "gauge",
    "Until when no call is made, after Cloudflare refused one for the limit, in Unix time; 0: "
    "calls are made.",
    "account",
)
POLLS = _own(
    "polls_total",
    "counter",
    "Calls for looks and lists by kind and result: success, or the class of failure.",
    "kind",
    "result",
)
POLL_LAG = _own(
    "poll_lag_seconds",
    "gauge",
    "How far behind its plan the oldest look or sweep that is due is.",
)
INSTANCES_DROPPED = _own(
    "instances_dropped_total",
    "counter",
    "Discovered instances that were left out, their workflow being at discover.max_instances.",
)
ROWS_IGNORED = _own(
    "rows_ignored_total",
    "counter",
    "List rows without a status or a valid id, and parts of responses that could not be read, "
    "each time a response held one; the rest was taken.",
)
STEP_NAMES_DROPPED = _own(
    "step_names_dropped_total",
    "counter",
    "Finished steps and attempts shown as step=other, their workflow being at "
    "metrics.step_names.limit.",
)

STATE_WRITE_ERRORS = _own(
    "state_write_errors_total",
    "counter",
    "Times that the state could not be written, or its file not be used, since the start.",
)

OUTCOMES = ("success", "failure")
"""Of a finished step or attempt. Once a step's name is known, its series are there for both."""
_ENDINGS = ("complete", "errored", "terminated")
_ENDPOINTS = ("instance", "instances", "workflow", "workflows", "versions")
_CODES = ("200", "401", "403", "404", "429", "500", "timeout")

ZEROS: dict[Family, tuple[tuple[str, ...], ...]] = {
    RUNS_FINISHED: (_ENDINGS,),
    RUN_DURATIONS: (_ENDINGS,),
    QUEUE_DURATIONS: (),
    DETAILS_SKIPPED: (),
    WATCHED: (STATUSES,),
    FAILING: (FAILURE_REASONS,),
    UP: (),
    LAST_SUCCESS: (),
    API_REQUESTS: (_ENDPOINTS, _CODES),
    API_DURATION: (_ENDPOINTS,),
    POLLS: (("simple", "detail", "list"), ("success", *FAILURE_REASONS)),
    INSTANCES_DROPPED: (),
    ROWS_IGNORED: (),
    STEP_NAMES_DROPPED: (),
    STATE_WRITE_ERRORS: (),
}
"""What is there at 0 before anything happens, since `increase()` doesn't see a series that begins
at 1: the known values of each label but `account` and `workflow`, in all combinations."""

FAMILIES: tuple[Family, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Family)
)
"""All of them, in the order of their definition."""

CURRENT_STATUS = replace(STATUS, states=())
"""The same, without the states that it isn't in."""
