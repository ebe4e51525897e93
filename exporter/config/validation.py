"""What must hold between keys of the settings, looked at before types are known to be right, so
that it is reported together with every other mistake."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel

# The names that Cloudflare's own clients read.
ENV_TOKEN, ENV_EMAIL, ENV_KEY = "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_EMAIL", "CLOUDFLARE_API_KEY"
ENV_ACCOUNT = "CLOUDFLARE_ACCOUNT_ID"

CLOUDFLARE_LIMIT = 1200
"""Calls in 5 minutes that Cloudflare allows a user (API rate limits, Cloudflare's docs)."""

Loc = tuple[int | str, ...]
Problem = tuple[Loc, str]

_TOKEN, _KEY = ("api_token", "api_token_file"), ("api_key", "api_key_file")


def with_credentials(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with the environment's credential in each account that gives none itself."""
    accounts = data.get("accounts")
    if not isinstance(accounts, list):
        return data
    credential = credential_of(os.environ)
    return {
        **data,
        "accounts": [
            {**account, **credential}
            if isinstance(account, dict) and not _given(account, *_TOKEN, *_KEY, "api_email")
            else account
            for account in accounts
        ],
    }


def credential_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment's credential, as keys of an account; empty where there is none."""
    if environ.get(ENV_TOKEN):
        return {"api_token": environ[ENV_TOKEN]}
    if environ.get(ENV_EMAIL) and environ.get(ENV_KEY):
        return {"api_email": environ[ENV_EMAIL], "api_key": environ[ENV_KEY]}
    return {}


def problems(data: Mapping[str, Any], *, default_api: Mapping[str, Any]) -> Iterator[Problem]:
    """Every mistake that spans keys.

    Args:
        data: Settings as they were given, of any shape.
        default_api: What the keys of `api` are when they aren't given.
    """
    given = {**default_api, **_section(data, "api")}
    url = given["url"]
    accounts = list(_mappings(data.get("accounts")))
    for index, account in accounts:
        where: Loc = ("accounts", index)
        for text in _account(account):
            yield where, text
        for text in _access(account, str(url)):
            yield where, text
        for number, workflow in _mappings(account.get("workflows")):
            for text in _workflow(workflow):
                yield (*where, "workflows", number), text
        names = [workflow.get("name") for _, workflow in _mappings(account.get("workflows"))]
        yield from _twice((*where, "workflows"), names)
    yield from _twice(("accounts",), (a.get("name") or a.get("account_id") for _, a in accounts))
    limit = given["requests_per_5m"]
    if is_cloudflare(str(url)) and str(limit).isdigit() and int(str(limit)) > CLOUDFLARE_LIMIT:
        text = f"must be at most {CLOUDFLARE_LIMIT}: past it Cloudflare refuses its user every call"
        yield ("api", "requests_per_5m"), text
    plain = _is_plain(str(url)) and not is_loopback(str(url))
    sends = any(_given(account, *_TOKEN, *_KEY) for _, account in accounts)
    if plain and sends and not given.get("allow_plain_http"):
        text = "credentials would go over plain http; use https, or set api.allow_plain_http"
        yield ("api", "url"), text
    yield from _shard(_section(data, "shard"), limit)


def _shard(shard: Mapping[str, Any], requests_per_5m: object) -> Iterator[Problem]:
    count = _number(shard.get("count")) or 1
    limit = _number(requests_per_5m) or count
    if "index" not in shard and count > 1:
        text = f"is missing; give each shard its own, from 0 to {count - 1}, or auto"
        yield ("shard", "index"), text
    if (_number(shard.get("index")) or 0) >= count:
        text = f"must be below shard.count, which is {count}: the first shard is 0"
        yield ("shard", "index"), text
    if limit < count:
        text = f"must be at most api.requests_per_5m, which is {limit}: each shard needs a call"
        yield ("shard", "count"), text


def _number(value: object) -> int | None:
    return int(str(value)) if re.fullmatch("[0-9]{1,9}", str(value)) else None


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The keys of a section that were given a value."""
    section = data.get(name)
    keys = vars(section) if isinstance(section, BaseModel) else section
    return {k: v for k, v in keys.items() if v is not None} if isinstance(keys, dict) else {}


def is_glob(name: str) -> bool:
    """Whether a workflow's configured name stands for all workflows that match it."""
    return not set(name).isdisjoint("*?[")


def is_cloudflare(url: str) -> bool:
    """Whether a URL's host is Cloudflare's, whose limit is known."""
    host = _split(url).hostname or ""
    return host == "cloudflare.com" or host.endswith(".cloudflare.com")


def _account(account: Mapping[str, Any]) -> Iterator[str]:
    if not _given(account, "name", "account_id"):
        yield "needs a name or an account_id"
    for pair in (_TOKEN, _KEY):
        if len(_given(account, *pair)) == 2:
            yield "give one of {} and {}".format(*pair)
    for file in (_TOKEN[1], _KEY[1]):
        if re.fullmatch(r"[A-Za-z0-9_-]{37,}", str(account.get(file))):
            # It isn't repeated, nor looked for on the disk and reported as missing.
            yield f"{file} must name a file; what it holds looks like the secret itself"
    token, key = _given(account, *_TOKEN), _given(account, *_KEY)
    email = _given(account, "api_email")
    if token and (key or email):
        yield "give an API token or api_email with an API key, not both"
    elif bool(key) != bool(email):
        yield "api_email and an API key (api_key or api_key_file) go together"


def _access(account: Mapping[str, Any], url: str) -> Iterator[str]:
    if "{account_id}" in url and not _given(account, "account_id"):
        yield "account_id is missing; api.url needs it"
    if not _given(account, *_TOKEN, *_KEY, "api_email") and not is_loopback(url):
        yield f"no credential; give api_token_file, api_token, or {ENV_TOKEN} in the environment"


def _workflow(workflow: Mapping[str, Any]) -> Iterator[str]:
    name, instances = workflow.get("name"), workflow.get("instances")
    if not instances and workflow.get("discover") is None:
        yield "there is nothing to watch; give instances, or discover: {} to find them"
    if instances and isinstance(name, str) and is_glob(name):
        yield "instances need a workflow's exact name, not a glob"
    if isinstance(instances, list):
        for _, text in _twice((), instances):
            yield text


def _twice(loc: Loc, names: Iterable[object]) -> Iterator[Problem]:
    counts = Counter(name for name in names if isinstance(name, str))
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        yield loc, f"listed twice: {', '.join(twice)}"


def _given(section: Mapping[str, Any], *keys: str) -> list[str]:
    return [key for key in keys if section.get(key) is not None]


def _mappings(items: object) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield index, item


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, so that plain http to it leaves no wire."""
    host = _split(url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.\d{1,3}){3}", host) is not None


def _is_plain(url: str) -> bool:
    return _split(url).scheme == "http"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
