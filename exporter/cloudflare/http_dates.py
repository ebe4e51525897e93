"""The dates in the headers of responses, and how long `Retry-After` asks to wait."""

import time
from email.utils import parsedate_to_datetime

import httpx

from exporter.cloudflare.models import corrected, unix

_MAX_RETRY_AFTER = 3600.0
"""Seconds: a longer `Retry-After` comes from a wrong clock."""


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
