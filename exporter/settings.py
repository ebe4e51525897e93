"""The one validated tree of settings: file, environment (`CWE_…`) and flags, in rising rank.

Names and meanings are the contract with people's configuration files; `config.example.yaml` shows
every key. Every mistake is reported in one go, each with its path.
"""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from exporter.durations import Duration

ENV_PREFIX = "CWE_"
# The names that Cloudflare's own clients read.
ENV_TOKEN, ENV_EMAIL, ENV_KEY = "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_EMAIL", "CLOUDFLARE_API_KEY"

Status = Literal[
    "queued",
    "running",
    "paused",
    "errored",
    "terminated",
    "complete",
    "waitingForPause",
    "waiting",
    "rollingBack",
]
NOT_ENDED_WELL: tuple[Status, ...] = (
    "queued",
    "running",
    "paused",
    "errored",
    "waitingForPause",
    "waiting",
    "rollingBack",
)

# Cloudflare's own rule for instance ids and workflow names (Workflows limits page).
_INSTANCE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_WORKFLOW_NAME = re.compile(r"[A-Za-z0-9_*?\[\]!-]{1,64}")


def _instance_id(value: str) -> str:
    if not _INSTANCE_ID.fullmatch(value):
        raise ValueError("not an instance id: 1 to 100 letters, digits, _ or -, no - first")
    return value


def _workflow_name(value: str) -> str:
    if not _WORKFLOW_NAME.fullmatch(value):
        raise ValueError("not a workflow's name: 1 to 64 letters, digits, _ or -")
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _ascending(value: list[float]) -> list[float]:
    if not value or any(a >= b for a, b in itertools.pairwise(value)):
        raise ValueError("must hold at least one upper bound, in ascending order, none twice")
    return value


def _no_repeats(names: Iterable[str | None]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1 and name)
    if twice:
        raise ValueError(f"listed twice: {', '.join(twice)}")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _api_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must start with https:// (or http://) and name a host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("must not hold a user, a query or a fragment")
    if re.search(r"[{}]", value.replace("{account_id}", "")):
        raise ValueError("the only placeholder is {account_id}")
    return value


def _not_yet(value: object) -> object:
    if value is not None:
        # To serve without the TLS and passwords that somebody asked for would be worse.
        raise ValueError("TLS and authentication aren't there yet; leave it out")
    return value


def _listen_address(value: str) -> str:
    parse_address(value)
    return value


def parse_address(address: str) -> tuple[str, int]:
    """Host (empty for every address) and port.

    Raises:
        ValueError: `address` is no `host:port`; the message says what would be right.
    """
    pattern = r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>[0-9]{1,5})"
    match = re.fullmatch(pattern, address)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("not an address; write host:port or :port, as in 127.0.0.1:9734")
    return match["v6"] or match["host"], int(match["port"])


class Api(Section):
    url: Annotated[str, AfterValidator(_api_url)] = Field(
        "https://api.cloudflare.com/client/v4/accounts/{account_id}",
        description="Base of the API; {account_id} is put in. For a local engine: "
        "http://127.0.0.1:8787/cdn-cgi/local/explorer/api",
    )
    timeout: Duration = Field(
        Duration.parse("10s"), description="For a whole call, from connecting to the last byte."
    )
    requests_per_5m: int = Field(
        600,
        ge=1,
        le=1200,
        description="Calls in 5 minutes for each credential; Cloudflare refuses a user "
        "everything for 5 minutes once it has made more than 1200.",
    )
    allow_plain_http: bool = Field(
        False, description="Send credentials over unencrypted http to a host that isn't loopback."
    )


class Discover(Section):
    statuses: list[Status] = Field(
        list(NOT_ENDED_WELL), description="Statuses of the instances to watch."
    )
    max_age: Duration = Field(
        Duration.parse("24h"), description="How long ago an ended instance may have ended."
    )
    max_instances: int = Field(5000, ge=1, description="At most so many instances a workflow.")
    include: list[str] = Field(["*"], description="Globs over instance ids to watch.")
    exclude: list[str] = Field([], description="Globs over instance ids not to watch.")


class Workflow(Section):
    name: Annotated[str, AfterValidator(_workflow_name)] = Field(
        description="The workflow's name, or a glob over names."
    )
    instances: list[Annotated[str, AfterValidator(_instance_id)]] = Field(
        [], description="Ids of instances to watch."
    )
    discover: Discover | None = Field(None, description="Watch whatever instances match.")

    @model_validator(mode="after")
    def _watches_something(self) -> Self:
        if not self.instances and self.discover is None:
            raise ValueError("there is nothing to watch; give instances or discover")
        if self.instances and set(self.name) & set("*?["):
            raise ValueError("instances need a workflow's exact name, not a glob")
        _no_repeats(self.instances)
        return self


class Account(Section):
    name: str | None = Field(
        None, min_length=1, description="The label account; the account id if left out."
    )
    account_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]{1,64}$", description="From Cloudflare's dashboard."
    )
    api_token: SecretStr | None = Field(None, description=f"API token; otherwise from {ENV_TOKEN}.")
    api_token_file: Path | None = Field(None, description="File that holds the API token.")
    api_email: str | None = Field(
        None, description=f"E-mail for api_key; otherwise from {ENV_EMAIL}."
    )
    api_key: SecretStr | None = Field(None, description=f"Global API key; or {ENV_KEY}.")
    api_key_file: Path | None = Field(None, description="File that holds the global API key.")
    workflows: list[Workflow] = Field(min_length=1, description="Workflows to watch.")

    @property
    def label(self) -> str:
        """What the label `account` says."""
        return self.name or self.account_id or ""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if not self.label:
            raise ValueError("needs a name or an account_id")
        token = self.api_token or self.api_token_file
        key = self.api_key or self.api_key_file
        if self.api_token and self.api_token_file:
            raise ValueError("give one of api_token and api_token_file")
        if self.api_key and self.api_key_file:
            raise ValueError("give one of api_key and api_key_file")
        if token and (key or self.api_email):
            raise ValueError("give an API token or api_email with an API key, not both")
        if bool(key) != bool(self.api_email):
            raise ValueError("api_email and an API key (api_key or api_key_file) go together")
        _no_repeats(workflow.name for workflow in self.workflows)
        return self


class Poll(Section):
    interval: Duration = Field(
        Duration.parse("15s"), description="Between two looks (simple=true) at an instance."
    )
    detail_refresh: Duration = Field(
        Duration.parse("5m"),
        description="A live instance that didn't change gets a full look after so long: "
        "a retry inside an open step shows only there.",
    )
    ended_interval: Duration = Field(
        Duration.parse("10m"), description="Between two looks at an instance that has ended."
    )
    forget_after: Duration = Field(
        Duration.parse("1h"), description="How long series of a vanished instance stay."
    )


class Rewrite(Section):
    regex: Annotated[str, AfterValidator(_regex)] = Field(description="Searched in the step name.")
    replacement: str = Field(description=r"What matches becomes this; \1 is the first group.")


class StepNames(Section):
    limit: int = Field(200, ge=1, description="Step names a workflow; further ones are `other`.")
    rewrite: list[Rewrite] = Field([], description="Rules over step names, applied in order.")


class Buckets(Section):
    """Upper bounds of histograms, in ascending order, without +Inf."""

    run_duration_seconds: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 604800], description="Seconds."
    )
    queue_duration_seconds: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [0.1, 1, 5, 15, 60, 300, 900, 3600], description="Seconds."
    )
    step_duration_seconds: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 86400], description="Seconds."
    )
    step_attempt_duration_seconds: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600], description="Seconds."
    )
    step_attempts: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [1, 2, 3, 4, 5, 8, 10, 20, 50], description="Attempts."
    )


class Metrics(Section):
    instance_series: Literal["all", "unfinished", "none"] = Field(
        "all", description="Whose series to show; unfinished: not complete or terminated."
    )
    backfill: bool | None = Field(
        None,
        description="Count what had ended before the first look. "
        "Left out: yes for configured instances, no for discovered ones.",
    )
    step_names: StepNames = Field(StepNames())
    buckets: Buckets = Field(Buckets())


class State(Section):
    path: Path | None = Field(Path("state.db"), description="Where what was counted is kept.")


class Web(Section):
    listen_address: Annotated[str, AfterValidator(_listen_address)] = Field(
        "127.0.0.1:9734", description="host:port, [v6]:port, or :port for every address."
    )
    config_file: Annotated[Path | None, AfterValidator(_not_yet)] = Field(
        None, description="TLS and authentication; not there yet."
    )


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info")
    format: Literal["logfmt", "json"] = Field("logfmt")


class Settings(BaseSettings):
    """Everything that can be set.

    Raises:
        ValidationError: with every mistake of the file, the environment and the flags.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_implicit_flags=False,
    )

    api: Api = Field(Api(), description="Cloudflare's API")
    accounts: list[Account] = Field(min_length=1, description="Accounts to watch")
    poll: Poll = Field(Poll(), description="How often to look")
    metrics: Metrics = Field(Metrics(), description="What to show")
    state: State = Field(State(), description="What is kept on disk")
    web: Web = Field(Web(), description="What is served")
    log: Log = Field(Log(), description="What is logged, to standard error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Flags come in front of these (pydantic-settings puts them there), the file behind.
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Adds what spans sections, so that it is reported together with all else."""
        mistakes: list[InitErrorDetails] = []
        accounts = _dicts(data.get("accounts"))
        for index, account in accounts:
            _credentials_from_environment(account, os.environ)
            mistakes += _account_mistakes(index, account, data.get("api"))
        names = [account.get("name") or account.get("account_id") for _, account in accounts]
        try:
            _no_repeats(name for name in names if isinstance(name, str))
        except ValueError as error:
            mistakes.append(_mistake(("accounts",), str(error)))
        try:
            settings = handler(data)
        except ValidationError as error:
            mistakes = [
                InitErrorDetails(
                    type=PydanticCustomError(line["type"], "{text}", {"text": line["msg"]}),
                    loc=line["loc"],
                    input=line["input"],
                )
                for line in error.errors(include_url=False)
            ] + mistakes
        if mistakes:
            raise ValidationError.from_exception_data(cls.__name__, mistakes, hide_input=True)
        return settings


def _mistake(loc: tuple[str | int, ...], text: str) -> InitErrorDetails:
    error = PydanticCustomError("value_error", "{text}", {"text": text})
    return InitErrorDetails(type=error, loc=loc, input=None)


def _dicts(accounts: object) -> list[tuple[int, dict[str, Any]]]:
    items = accounts if isinstance(accounts, list) else []
    return [(index, item) for index, item in enumerate(items) if isinstance(item, dict)]


def _credentials_from_environment(account: dict[str, Any], environ: Mapping[str, str]) -> None:
    if account.keys() & {"api_token", "api_token_file", "api_email", "api_key", "api_key_file"}:
        return
    if environ.get(ENV_TOKEN):
        account["api_token"] = environ[ENV_TOKEN]
    elif environ.get(ENV_EMAIL) and environ.get(ENV_KEY):
        account.update(api_email=environ[ENV_EMAIL], api_key=environ[ENV_KEY])


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, so that plain http to it leaves no wire."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.\d{1,3}){3}", host) is not None


def _account_mistakes(
    index: int, account: dict[str, Any], api: object
) -> Iterable[InitErrorDetails]:
    given = api.model_dump() if isinstance(api, Api) else api if isinstance(api, dict) else {}
    url = given.get("url", Api().url)
    if not isinstance(url, str):
        return
    try:
        loopback, scheme = is_loopback(url), urlsplit(url).scheme
    except ValueError:
        return
    has_credential = account.keys() & {"api_token", "api_token_file", "api_key", "api_key_file"}
    if "{account_id}" in url and not account.get("account_id"):
        yield _mistake(("accounts", index), "account_id is missing; api.url needs it")
    if not has_credential and not loopback:
        yield _mistake(
            ("accounts", index),
            f"no credential; give api_token_file, api_token, or {ENV_TOKEN} in the environment",
        )
    if has_credential and scheme == "http" and not loopback and not given.get("allow_plain_http"):
        yield _mistake(
            ("api", "url"),
            "credentials would go over plain http; use https, or set api.allow_plain_http",
        )
