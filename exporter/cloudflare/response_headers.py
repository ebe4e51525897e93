"""What the headers of a response say: its date, how long to wait, and the rate limit."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx

from exporter.cloudflare.times import corrected, unix

_MAX_RETRY_AFTER = 3600.0
"""Seconds: a longer `Retry-After` comes from a wrong clock."""
_PARAMETER = re.compile(r"\b([qrtw])=(\d{1,9})\b")


def http_date(text: str) -> float | None:
    """Unix time of an HTTP date, in UTC unless it says otherwise; None where it is invalid."""
    try:
        return unix(corrected(parsedate_to_datetime(text)))
    except (ValueError, TypeError, OverflowError):
        return None


def retry_after(response: httpx.Response) -> float | None:
    """Seconds of `Retry-After`, at most an hour; None if it is missing or invalid.

    It is a number or a date (RFC 9110). A date is compared with the `Date` of the response, since
    clocks differ.
    """
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _MAX_RETRY_AFTER)
    until = http_date(value)
    sent = http_date(response.headers.get("date", ""))
    if until is None:
        return None
    return min(max(0.0, until - (time.time() if sent is None else sent)), _MAX_RETRY_AFTER)


def rate_limit(headers: Mapping[str, str]) -> dict[str, int]:
    """What `Ratelimit` and `Ratelimit-Policy` say, by their letters: `r` requests are left for `t`
    seconds, of a quota of `q` in `w` seconds. Of several policies, the first one counts."""
    return _numbers(headers, "ratelimit") | _numbers(headers, "ratelimit-policy")


def _numbers(headers: Mapping[str, str], name: str) -> dict[str, int]:
    found = _PARAMETER.findall(headers.get(name, ""))
    return {letter: int(digits) for letter, digits in reversed(found)}
