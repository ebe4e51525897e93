"""The accounts to watch, their credentials, and which of their workflows and instances."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from exporter.config.secrets import Secret, one_secret
from exporter.config.units import Duration, PositiveDuration
from exporter.config.validation import Problem, Section, duplicates, mappings, must
from exporter.statuses import SELECTED, Status

# The names that Cloudflare's own clients read.
ENV_TOKEN, ENV_EMAIL, ENV_KEY = "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_EMAIL", "CLOUDFLARE_API_KEY"
ENV_ACCOUNT = "CLOUDFLARE_ACCOUNT_ID"

LONGEST_ID = 271
"""Characters of an instance id. The documented limit is 100 letters, digits, `_` and `-`, but cron
triggers make longer ones of any kind, such as `*/30 * * * *-1786001400000`."""


def is_instance_id(value: str) -> bool:
    """Whether an instance can have this id, in the API's lists or in the configuration."""
    return 0 < len(value) <= LONGEST_ID and value.isprintable()


def is_glob(name: str) -> bool:
    """Whether a workflow's configured name stands for all workflows that match it."""
    return not set(name).isdisjoint("*?[")


def _matching(pattern: str, problem: str) -> AfterValidator:
    """Takes text that matches a pattern as a whole."""
    return must(re.compile(pattern).fullmatch, problem)


_InstanceId = Annotated[
    str, must(is_instance_id, f"not an instance id: 1 to {LONGEST_ID} printable characters")
]
# Cloudflare's own rule for workflow names (Workflows limits page), and the signs of a glob.
_WorkflowName = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9_*?\[\]!-]{1,64}", "not a workflow name: 1 to 64 letters, digits, _ or -"
    ),
]
# Cloudflare's have 32 hex digits. Simulators and proxies may take other names. Refused are what
# looks like an id that has lost or gained digits; and what is as long as an API token or key, since
# a secret must not become a label.
_AccountId = Annotated[
    str,
    _matching(
        r"(?!(?:[0-9a-f]{24,31}|[0-9a-f]{33,})$)[A-Za-z0-9_-]{1,36}",
        "not an account id: copy it from Cloudflare's dashboard, 32 hex digits",
    ),
]
# It goes into a header, so it is printable ASCII.
_Email = Annotated[str, _matching("[!-~]*@[!-~]*", "not an e-mail address")]


class Discover(Section):
    statuses: list[Status] = Field(list(SELECTED), min_length=1)
    """Statuses of the instances that have series; the runs of others are only counted."""
    max_age: PositiveDuration = Duration.parse("24h")
    """Maximum time since the end of an instance that has series."""
    min_age: Duration = Duration.parse("1m")
    """Minimum age of an instance that has series, unless it has errored; younger instances are only
    counted. 0s: every instance has series."""
    max_instances: int = Field(5000, ge=1)
    """Maximum discovered instances with series per workflow; errored ones come first, then live
    ones."""
    include: list[str] = Field(["*"], min_length=1)
    """Globs over the ids of instances to watch."""
    exclude: Annotated[
        list[str],
        must(
            lambda globs: "*" not in globs,
            '"*" excludes every instance; name those that must not be watched',
        ),
    ] = Field([])
    """Globs over the ids of instances not to watch."""


class Workflow(Section):
    name: _WorkflowName
    """Name of the workflow, or a glob over names. A workflow takes the entry with its name or,
    without one, the first glob that matches."""
    instances: list[_InstanceId] = Field([])
    """Ids of instances to watch."""
    discover: Discover | None = None
    """Watch all instances that the workflow's lists show; {} takes the defaults below."""

    @classmethod
    def problems(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        name, instances = given.get("name"), given.get("instances")
        if not instances and "discover" not in given:
            yield (), "nothing to watch; give instances, or discover: {} to find them"
        if instances and isinstance(name, str) and is_glob(name):
            yield ("instances",), "need the workflow's exact name, not a glob"
        yield from duplicates(("instances",), instances if isinstance(instances, list) else [])


class Events(Section):
    queue_id: Annotated[
        str,
        _matching(
            r"[A-Za-z0-9_-]{1,36}",
            "not a queue id: wrangler queues info NAME shows it, 32 hex digits",
        ),
    ]
    """Id of the queue that gets the events of the account's workflows."""
    api_token: Secret | None = Field(None, min_length=1)
    """API token with the permission Queues Edit."""
    api_token_file: Path | None = None
    """File that holds this API token; re-read when it changes."""
    list_interval: PositiveDuration = Duration.parse("2m")
    """Maximum time between two list passes while events announce nearly every change; never less
    than poll.interval."""

    @classmethod
    def problems(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        yield from one_secret(given, "api_token")
        if not given.keys() & {"api_token", "api_token_file"}:
            text = "needs api_token_file or api_token: a token with the permission Queues Edit"
            yield (), text


class Account(Section):
    name: str | None = Field(None, min_length=1)
    """Value of the label account; default: the account id."""
    account_id: _AccountId | None = None
    """From Cloudflare's dashboard; required where api.url has {account_id}."""
    api_token: Secret | None = Field(None, min_length=1)
    """API token; otherwise from CLOUDFLARE_API_TOKEN."""
    api_token_file: Path | None = None
    """File that holds the API token; re-read when it changes."""
    api_email: _Email | None = Field(None, min_length=1)
    """E-mail for api_key; otherwise both from CLOUDFLARE_EMAIL and CLOUDFLARE_API_KEY."""
    api_key: Secret | None = Field(None, min_length=1)
    """Global API key."""
    api_key_file: Path | None = None
    """File that holds the global API key; re-read when it changes."""
    events: Events | None = None
    """Queue of the workflows' lifecycle events, which make changes show within seconds;
    experimental, see events.md."""
    workflows: list[Workflow] = Field(min_length=1)
    """Workflows to watch."""

    @property
    def label(self) -> str:
        """Value of the label `account`."""
        return self.name or self.account_id or ""

    @classmethod
    def problems(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        if not given.keys() & {"name", "account_id"}:
            yield (), "needs a name or an account_id"
        for secret in ("api_token", "api_key"):
            yield from one_secret(given, secret)
        key = given.keys() & {"api_key", "api_key_file"}
        email = "api_email" in given
        if given.keys() & {"api_token", "api_token_file"} and (key or email):
            yield (), "give an API token or api_email with an API key, not both"
        elif bool(key) != email:
            yield (), "api_email and an API key (api_key or api_key_file) go together"
        names = [workflow.get("name") for _, workflow in mappings(given.get("workflows"))]
        yield from duplicates(("workflows",), names)
