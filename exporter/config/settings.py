"""All settings as one tree of sections, each key with its default and description.

Names and meanings are the contract with people's configuration files; `config.example.yaml` shows
every key. Flags, environment variables, docs/configuration.md and the chart's schema are made from
this tree.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ByteSize, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from exporter.config.accounts import ENV_TOKEN, Account
from exporter.config.metrics import Metrics
from exporter.config.secrets import gives_credential
from exporter.config.units import Duration, PositiveDuration, Size
from exporter.config.urls import (
    ApiUrl,
    DatabaseUrl,
    ListenAddress,
    holds_password,
    is_cloudflare,
    is_loopback,
    is_plain,
)
from exporter.config.validation import Problem, Section, duplicates, mappings, must

CLOUDFLARE_LIMIT = 1200
"""Requests in 5 minutes that Cloudflare allows a user or account token (API rate limits,
Cloudflare's docs)."""


class Api(Section):
    url: ApiUrl = "https://api.cloudflare.com/client/v4/accounts/{account_id}"
    """Base URL of the API; {account_id} is replaced by the account's id. For a local engine:
    http://127.0.0.1:8787/cdn-cgi/local/explorer/api"""
    timeout: PositiveDuration = Duration.parse("10s")
    """Timeout of a whole request, from connecting to the last byte; a large response gets one more
    second for each MiB received."""
    max_body: Size = ByteSize(256 << 20)
    """Maximum size of a response, decompressed; a longer one is not read."""
    requests_per_5m: int = Field(600, ge=1)
    """Maximum requests in 5 minutes for each credential. Cloudflare allows 1200 to a user or
    account token, and then refuses all of its requests for 5 minutes."""
    reserve: float = Field(0.2, ge=0, lt=1)
    """Share of Cloudflare's limit that is left to other tools of the same user, in addition to what
    they use."""
    allow_plain_http: bool = False
    """Send credentials over unencrypted http to hosts that are not loopback."""

    @field_validator("requests_per_5m")
    @classmethod
    def _at_most_cloudflares(cls, value: int, info: ValidationInfo) -> int:
        if value > CLOUDFLARE_LIMIT and is_cloudflare(info.data.get("url", "")):
            raise ValueError(
                f"must be at most {CLOUDFLARE_LIMIT}; beyond it Cloudflare refuses all requests of "
                "the user"
            )
        return value


class Poll(Section):
    interval: PositiveDuration = Duration.parse("15s")
    """Time between two polls (simple=true) of an instance that has not ended, and between two list
    passes."""
    detail_refresh: PositiveDuration = Duration.parse("5m")
    """Time between two detail requests for a live instance, as the budget allows: a retry inside an
    open step shows only there."""
    ended_interval: PositiveDuration = Duration.parse("10m")
    """Time between two polls of an instance that has ended; also the maximum back-off of an
    instance whose polls fail."""
    forget_after: PositiveDuration = Duration.parse("1h")
    """Time after which the series of an instance expire, once it is deleted or no longer
    selected."""


class State(Section):
    path: Path | None = Path("state.db")
    """SQLite file that persists what was counted; null: nothing is persisted."""
    url: DatabaseUrl | None = None
    """URL of a PostgreSQL database that replicas share, as libpq takes it; state.path is then not
    used."""
    password_file: Path | None = None
    """File that holds the database's password; re-read for each connection."""

    @classmethod
    def problems(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        url = given.get("url")
        if given.get("path") in ("", "."):
            yield ("path",), "must be the path of a file, or null to persist nothing"
        if "password_file" in given and url is None:
            yield ("password_file",), "needs state.url"
        if "password_file" in given and holds_password(str(url)):
            yield ("password_file",), "state.url has a password; give one of them"


class Replica(Section):
    name: str = Field("auto", min_length=1)
    """Name that the other replicas show for this one; auto: the host's name."""
    lease: Annotated[Duration, must(lambda lease: lease >= 5, "must be at least 5s")] = (
        Duration.parse("30s")
    )
    """Time after which other replicas take over from one that stopped, or lacks the database. Its
    counters are shown until then, and again once it is back."""


class Web(Section):
    listen_address: ListenAddress = "127.0.0.1:9734"
    """host:port or [IPv6]:port; :port or [::]:port for every address, also of IPv4."""
    config_file: Path | None = None
    """File with TLS and passwords, in the format of Prometheus' exporters."""
    enable_lifecycle: bool = False
    """Let POST /-/reload reload the configuration."""


class Config(Section):
    auto_reload_interval: Duration = Duration(0)
    """How often to reload the file if it has changed, or the last reload failed; 0s: only on SIGHUP
    or POST /-/reload."""


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum level that is logged; info logs nothing while nothing changes."""
    format: Literal["logfmt", "json"] = "logfmt"
    """Format of each line."""


class Settings(Section):
    """Everything that can be set.

    Raises:
        ValidationError: with everything that is wrong.
    """

    api: Api = Api()
    """Cloudflare's API"""
    accounts: list[Account] = Field(min_length=1)
    """Accounts to watch"""
    poll: Poll = Poll()
    """How often to poll"""
    metrics: Metrics = Metrics()
    """What the metrics show"""
    state: State = State()
    """What is persisted, on disk or in a database"""
    replica: Replica = Replica()
    """One of several that share state.url"""
    web: Web = Web()
    """The HTTP server"""
    config: Config = Config()
    """The configuration itself"""
    log: Log = Log()
    """Logs, on standard error"""

    @classmethod
    def problems(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        api = vars(Api()) | _section(given, "api")
        url = str(api["url"])
        accounts = mappings(given.get("accounts"))
        for index, account in accounts:
            if "{account_id}" in url and account.get("account_id") is None:
                yield ("accounts", index, "account_id"), "is missing; api.url needs it"
            if not gives_credential(account) and not is_loopback(url):
                text = f"no credential; give api_token_file, api_token, or {ENV_TOKEN}"
                yield ("accounts", index), f"{text} in the environment"
        labels = [account.get("name") or account.get("account_id") for _, account in accounts]
        yield from duplicates(("accounts",), labels, "; give each entry a name of its own")
        events = [account.get("events") for _, account in accounts]
        queues = [e.get("queue_id") for e in events if isinstance(e, dict)]
        yield from duplicates(("accounts",), queues)
        sends = queues or any(gives_credential(account) for _, account in accounts)
        if sends and is_plain(url) and not is_loopback(url) and not api["allow_plain_http"]:
            text = "would send credentials unencrypted; use https, or set api.allow_plain_http"
            yield ("api", "url"), text


def _section(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The keys of a section that are given and not null."""
    section = given.get(name)
    return {k: v for k, v in section.items() if v is not None} if isinstance(section, dict) else {}


Key = tuple[str, ...]
"""The path of a key that isn't in a list."""


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key by its path, such as `accounts[].name`; a section before what it holds."""
    for name, field in model.model_fields.items():
        path, below = f"{prefix}{name}", model_of(field.annotation)
        yield path, field
        if below is not None:
            is_list = get_origin(field.annotation) is list
            yield from paths(below, f"{path}[]." if is_list else f"{path}.")


def keys() -> Iterator[tuple[Key, FieldInfo]]:
    """Every key that isn't in a list."""
    for path, field in paths(Settings):
        if "[]" not in path:
            yield tuple(path.split(".")), field


def leaves() -> Iterator[tuple[Key, FieldInfo]]:
    """The keys of `keys` that hold a value, and aren't sections."""
    return ((key, field) for key, field in keys() if not isinstance(field.default, Section))


def model_of(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation, which may be that of a list of sections or an optional section;
    None: it isn't about sections."""
    kinds = (annotation, *get_args(annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
