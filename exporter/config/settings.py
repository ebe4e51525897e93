"""The one validated tree of settings: file, environment (`CWE_…`) and flags, in rising rank.

Names and meanings are the contract with people's configuration files; `config.example.yaml` shows
every key. Every mistake is reported in one go, each with its path.
"""

import itertools
import math
import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from exporter.config import validation as coherence
from exporter.config.durations import Duration
from exporter.config.sizes import Size
from exporter.statuses import SELECTED, Status

ENV_PREFIX = "CWE_"

LONGEST_ID = 271
"""Characters of an instance id. The documented limit is 100 letters, digits, `_` and `-`, but cron
triggers make longer ones of any kind, such as `*/30 * * * *-1786001400000`."""

# Cloudflare's own rule for workflow names (Workflows limits page).
_WORKFLOW_NAME = re.compile(r"[A-Za-z0-9_*?\[\]!-]{1,64}")
# 32 hex digits at Cloudflare; simulators and proxies take other names.
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_instance_id(value: str) -> bool:
    """Whether an instance can have this id, in the API's lists or in the configuration."""
    return 0 < len(value) <= LONGEST_ID and value.isprintable()


def _instance_id(value: str) -> str:
    if not is_instance_id(value):
        raise ValueError(f"not an instance id: 1 to {LONGEST_ID} printable characters")
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


def _account_id(value: str) -> str:
    if not _ACCOUNT_ID.fullmatch(value):
        raise ValueError("not an account id: copy it from Cloudflare's dashboard, 32 hex digits")
    return value


def _email(value: str) -> str:
    # It goes into a header.
    if not (value.isascii() and value.isprintable()) or " " in value or "@" not in value:
        raise ValueError("not an e-mail address")
    return value


def _ascending(value: list[float]) -> list[float]:
    if not value or any(a >= b for a, b in itertools.pairwise(value)):
        raise ValueError("must hold at least one upper bound, in ascending order, none twice")
    if not all(map(math.isfinite, value)):
        raise ValueError("must hold numbers; the bucket +Inf is always there")
    return value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return without_nulls(cls, data)


def without_nulls(model: type[BaseModel], data: Any) -> Any:
    """`data` without keys that have nothing after them, which is as good as leaving them out.

    Nulls stay where they mean something.
    """
    if not isinstance(data, dict):
        return data
    fields = model.model_fields
    return {
        key: value
        for key, value in data.items()
        if value is not None or key not in fields or type(None) in get_args(fields[key].annotation)
    }


def _api_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must start with https:// (or http://) and name a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must not hold a user, a password, a query or a fragment")
    if not value.isprintable() or " " in value:
        raise ValueError("must not hold spaces or control characters")
    if re.search(r"[{}]", value.replace("{account_id}", "")):
        raise ValueError("the only placeholder is {account_id}")
    parts.port  # noqa: B018 - raises ValueError for a port that is none
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
    try:
        if match is not None and int(match["port"]) <= 65535:
            # In its short form: whether it is `::` shows.
            host = str(IPv6Address(match["v6"])) if match["v6"] else match["host"]
            return host, int(match["port"])
    except AddressValueError:
        pass
    raise ValueError("not an address; write host:port or :port, as in 127.0.0.1:9734")


class Api(Section):
    url: Annotated[str, AfterValidator(_api_url)] = Field(
        "https://api.cloudflare.com/client/v4/accounts/{account_id}",
        description="Base of the API; {account_id} is put in. For a local engine: "
        "http://127.0.0.1:8787/cdn-cgi/local/explorer/api",
    )
    timeout: Duration = Field(
        Duration.parse("10s"),
        description="For a whole call, from connecting to the last byte; "
        "a second more for each MiB of a large answer.",
    )
    max_body: Size = Field(
        Size.parse("256MiB"), description="The longest answer that is read, decompressed."
    )
    requests_per_5m: int = Field(
        600,
        ge=1,
        description="Calls in 5 minutes for each credential; Cloudflare refuses a user "
        "everything for 5 minutes once it has made more than 1200.",
    )
    reserve: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="The share of Cloudflare's quota that is left to the user's other tools, "
        "whatever they spend already.",
    )
    allow_plain_http: bool = Field(
        False, description="Send credentials over unencrypted http to a host that isn't loopback."
    )


def _zero_too(value: object) -> object:
    return Duration(0) if re.fullmatch("0(ms|[smhdwy])", str(value)) else value


DurationOrZero = Annotated[Duration, BeforeValidator(_zero_too)]
"""A duration that may be 0s, which turns off what it sets."""


def _leaves_some(value: list[str]) -> list[str]:
    if "*" in value:
        raise ValueError('"*" excludes every instance; name those that are not to be watched')
    return value


class Discover(Section):
    statuses: list[Status] = Field(
        list(SELECTED), min_length=1, description="Statuses of the instances to watch."
    )
    max_age: Duration = Field(
        Duration.parse("24h"),
        description="How long ago an ended instance may have ended; one that runs is always taken.",
    )
    min_age: DurationOrZero = Field(
        Duration.parse("1m"),
        description="How old an instance must be to have series, unless it has errored; younger "
        "ones are only counted. 0s: every instance has series.",
    )
    max_instances: int = Field(
        5000,
        ge=1,
        description="Maximum discovered instances with series per workflow, on each shard; errored "
        "ones come first, then live ones.",
    )
    include: list[str] = Field(["*"], min_length=1, description="Globs over instance ids to watch.")
    exclude: Annotated[list[str], AfterValidator(_leaves_some)] = Field(
        [], description="Globs over instance ids not to watch."
    )


class Workflow(Section):
    name: Annotated[str, AfterValidator(_workflow_name)] = Field(
        description="The workflow's name, or a glob over names."
    )
    instances: list[Annotated[str, AfterValidator(_instance_id)]] = Field(
        [], description="Ids of instances to watch."
    )
    discover: Discover | None = Field(
        None, description="Watch whatever instances match; {} takes the defaults below."
    )


class Account(Section):
    name: str | None = Field(
        None, min_length=1, description="The label account; the account id if left out."
    )
    account_id: Annotated[str, AfterValidator(_account_id)] | None = Field(
        None,
        description="From Cloudflare's dashboard; needed where api.url has {account_id}.",
    )
    api_token: SecretStr | None = Field(
        None, min_length=1, description=f"API token; otherwise from {coherence.ENV_TOKEN}."
    )
    api_token_file: Path | None = Field(
        None, description="File that holds the API token; read again when it changes."
    )
    api_email: Annotated[str, AfterValidator(_email)] | None = Field(
        None,
        min_length=1,
        description=f"E-mail for api_key; otherwise both from {coherence.ENV_EMAIL} and "
        f"{coherence.ENV_KEY}.",
    )
    api_key: SecretStr | None = Field(None, min_length=1, description="Global API key.")
    api_key_file: Path | None = Field(
        None, description="File that holds the global API key; read again when it changes."
    )
    workflows: list[Workflow] = Field(min_length=1, description="Workflows to watch.")

    @property
    def label(self) -> str:
        """What the label `account` says."""
        return self.name or self.account_id or ""

    @property
    def key(self) -> str:
        """What it is known by whatever it is called: its id, where that is given."""
        return self.account_id or self.label


class Poll(Section):
    interval: Duration = Field(
        Duration.parse("15s"),
        description="Between two looks (simple=true) at an instance that has not ended, and "
        "between two sweeps over lists.",
    )
    detail_refresh: Duration = Field(
        Duration.parse("5m"),
        description="A live instance that didn't change gets a full look after so long: "
        "a retry inside an open step shows only there.",
    )
    ended_interval: Duration = Field(
        Duration.parse("10m"),
        description="Between two polls of an instance that has ended; also the longest pause of "
        "one that can't be read.",
    )
    forget_after: Duration = Field(
        Duration.parse("1h"),
        description="How long series stay of an instance that is deleted or no longer selected.",
    )


class Rewrite(Section):
    regex: Annotated[str, AfterValidator(_regex)] = Field(description="Searched in the step name.")
    replacement: str = Field(description=r"What matches becomes this; \1 is the first group.")

    @model_validator(mode="after")
    def _groups_exist(self) -> Self:
        try:
            re.sub(self.regex, self.replacement, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"replacement doesn't fit regex: {error}") from None
        return self


class Names(Section):
    """How names that customers choose become values of a label."""

    limit: int = Field(200, ge=1, description="Names a workflow; further ones are `other`.")
    rewrite: list[Rewrite] = Field([], description="Rules over names, applied in order.")

    @property
    def rules(self) -> list[tuple[str, str]]:
        return [(rule.regex, rule.replacement) for rule in self.rewrite]


class Buckets(Section):
    """Upper bounds of histograms, in ascending order, without +Inf."""

    run_duration_seconds: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 604800], description="In seconds."
    )
    queue_duration_seconds: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [0.1, 1, 5, 15, 60, 300, 900, 3600], description="In seconds."
    )
    step_duration_seconds: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 86400], description="In seconds."
    )
    step_attempt_duration_seconds: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600], description="In seconds."
    )
    step_attempts: Annotated[list[float], AfterValidator(_ascending)] = Field(
        [1, 2, 3, 4, 5, 8, 10, 20, 50], description="In attempts."
    )


class Metrics(Section):
    instance_status: Literal["all", "current"] = Field(
        "all",
        description="Statuses with a series for each instance: all known ones, 1 or 0, or the "
        "current one alone.",
    )
    instance_series: Literal["all", "unfinished", "none"] = Field(
        "all", description="Whose series to show; unfinished: not complete or terminated."
    )
    backfill: bool | None = Field(
        None,
        description="Count what had ended before the first look. "
        "Left out: yes for configured instances, no for discovered ones.",
    )
    created: bool = Field(
        False,
        description="Show in OpenMetrics when each counter and histogram began, as `_created`; "
        "Prometheus stores it as one more series.",
    )
    step_names: Names = Field(Names(), description="The label step.")
    error_names: Names = Field(Names(), description="The label error_name.")
    buckets: Buckets = Field(Buckets(), description="Upper bounds of the histogram's buckets.")


def _shard_index(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    raise ValueError("must be a whole number, of which the first is 0, or auto")


class Shard(Section):
    index: Annotated[int | Literal["auto"], BeforeValidator(_shard_index)] = Field(
        0,
        description="Which of the shards this process is; auto: the number its host name ends on.",
    )
    count: int = Field(1, ge=1, description="Processes that share the instances and the calls.")
    previous_count: int | None = Field(
        None,
        ge=1,
        description="Their number before it was changed: what they counted isn't counted again.",
    )


class State(Section):
    path: Path | None = Field(
        Path("state.db"), description="SQLite file that keeps what was counted; null keeps nothing."
    )


class Web(Section):
    listen_address: Annotated[str, AfterValidator(_listen_address)] = Field(
        "127.0.0.1:9734",
        description="host:port, [v6]:port; :port or [::]:port for every address, also of IPv4.",
    )
    config_file: Path | None = Field(
        None, description="File with TLS and passwords, in the format of Prometheus' exporters."
    )
    enable_lifecycle: bool = Field(
        False, description="Let POST /-/reload load the configuration anew."
    )


class Config(Section):
    auto_reload_interval: DurationOrZero = Field(
        Duration(0),
        description="How often to look whether the file holds something else, and to load it "
        "anew if so; 0s: only when told to.",
    )


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that is logged; info is quiet as long as nothing happens."
    )
    format: Literal["logfmt", "json"] = Field("logfmt", description="How a line is written.")


class Settings(BaseSettings):
    """Everything that can be set.

    Raises:
        ValidationError: with every mistake of the file, the environment and the flags.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
        extra="forbid",
        frozen=True,
    )

    api: Api = Field(Api(), description="Cloudflare's API")
    accounts: list[Account] = Field(min_length=1, description="Accounts to watch")
    poll: Poll = Field(Poll(), description="How often to look")
    metrics: Metrics = Field(Metrics(), description="What to show")
    shard: Shard = Field(Shard(), description="One process among several that share the work")
    state: State = Field(State(), description="What is kept on disk")
    web: Web = Field(Web(), description="What is served")
    config: Config = Field(Config(), description="The configuration itself")
    log: Log = Field(Log(), description="What is logged, to standard error")

    @property
    def requests_per_5m(self) -> int:
        """Requests in 5 minutes that this process may send for each credential."""
        return self.api.requests_per_5m // self.shard.count

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `exporter.config.load` reads the other sources and puts them together.
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Adds what spans keys, so that it is reported together with all else."""
        data = coherence.with_credentials(without_nulls(cls, data))
        lines: list[tuple[coherence.Loc, str, str, object]] = [
            (loc, "value_error", text, None)
            for loc, text in coherence.problems(data, default_api=vars(Api()))
        ]
        try:
            settings = handler(data)
        except ValidationError as error:
            own = error.errors(include_url=False)
            lines = [
                (line["loc"], line["type"], line["msg"], line["input"]) for line in own
            ] + lines
        if lines:
            raise ValidationError.from_exception_data(
                cls.__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError(kind, "{text}", {"text": text}),
                        loc=loc,
                        input=given,
                    )
                    for loc, kind, text, given in lines
                ],
                hide_input=True,
            )
        return settings


def leaves(
    model: type[BaseModel] = Settings, loc: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every key that holds a value and no further keys, with its path."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and not get_origin(kind) and issubclass(kind, BaseModel):
            yield from leaves(kind, (*loc, name))
        else:
            yield (*loc, name), field


def model_of(annotation: object) -> type[BaseModel] | None:
    """The model of a section, also of one in a list or one that may be missing."""
    if isinstance(annotation, type) and not get_origin(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    if get_origin(annotation) in (list, Union, UnionType):
        return next(filter(None, map(model_of, get_args(annotation))), None)
    return None
