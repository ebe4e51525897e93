"""Pages of a list of instances, by cursor or by page number."""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import msgspec

from .api_results import instance_row
from .response import ApiError
from .world import STATUSES, Workflow, World

_key = attrgetter("key")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?Z")


class Cursor(msgspec.Struct, array_like=True):
    """Where a list continues: after the row with this key, in this list, given out at `issued`."""

    created: int
    number: int
    status: str
    direction: str
    issued: int

    def encode(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


def invalid(message: str) -> ApiError:
    """A parameter that the API refuses."""
    return ApiError(400, 10001, message)


def one_of(query: Mapping[str, str], name: str, options: tuple[str, ...], default: str) -> str:
    """A parameter that takes one of some values."""
    value = query.get(name)
    if value is None:
        return default
    if value not in options:
        expected = "|".join(f'"{option}"' for option in options)
        raise invalid(f"{name}: Invalid option: expected one of {expected}")
    return value


def number(query: Mapping[str, str], name: str, default: int, largest: int | None = None) -> int:
    """A parameter that takes a whole number from 1 on."""
    value = query.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"-?\d{1,15}(\.0+)?", value):
        raise invalid(f'{name}: Expected query param to be number but received "{value}"')
    parsed = int(float(value))
    if parsed < 1:
        raise invalid(f"{name}: Too small: expected number to be >=1")
    if largest is not None and parsed > largest:
        raise invalid(f"{name}: Too big: expected number to be <={largest}")
    return parsed


def date(query: Mapping[str, str], name: str) -> int | None:
    """A parameter that takes a UTC date-time without offset, in milliseconds."""
    value = query.get(name)
    if value is None:
        return None
    try:
        if not _DATE.fullmatch(value):
            raise ValueError
        moment = datetime.fromisoformat(value[:-1]).replace(tzinfo=UTC)
    except ValueError:
        raise invalid(f"{name}: Invalid ISO datetime") from None
    return round(moment.timestamp() * 1000)


def instances_page(
    world: World, workflow: Workflow, query: Mapping[str, str], at: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a page and its `result_info`.

    Raises:
        ApiError: a parameter isn't valid.
    """
    per_page = number(query, "per_page", min(25, world.per_page_limit), world.per_page_limit)
    page = number(query, "page", 1)
    status = one_of(query, "status", STATUSES, "")
    direction = one_of(query, "direction", ("asc", "desc"), "desc")
    low, high = date(query, "date_start"), date(query, "date_end")
    if low is not None and high is not None and low > high:
        raise ApiError(
            400,
            10502,
            "'date_start' must not be after 'date_end'. Update 'date_start' or 'date_end' so "
            "'date_start' is before or equal to 'date_end'.",
        )
    listed = workflow.by_status.get(status, []) if status else workflow.order
    first = 0 if low is None else bisect_left(listed, (low, -1), key=_key)
    last = len(listed) if high is None else bisect_left(listed, (high + 1, -1), key=_key)
    total = max(0, last - first)
    info: dict[str, Any] = {"per_page": per_page, "total_count": total}
    if query.get("cursor"):
        if "page" in query:
            raise invalid("cursor: 'cursor' and 'page' are mutually exclusive")
        cursor = _cursor(world, query["cursor"], status, direction, at)
        position = (cursor.created, cursor.number)
        if direction == "asc":
            first = max(first, bisect_right(listed, position, key=_key))
        else:
            last = min(last, bisect_left(listed, position, key=_key))
    else:
        info["page"] = page
        info["total_pages"] = max(1, -(-total // per_page))
        skipped = (page - 1) * per_page
        first, last = (first + skipped, last) if direction == "asc" else (first, last - skipped)
    if direction == "asc":
        chosen = listed[first : max(first, min(last, first + per_page))]
        more = first + per_page < last
    else:
        chosen = listed[max(first, last - per_page) : max(first, last)][::-1]
        more = last - per_page > first
    info["count"] = len(chosen)
    if more:
        info["cursor"] = Cursor(*chosen[-1].key, status, direction, at).encode()
    return [instance_row(instance, at) for instance in chosen], info


def _cursor(world: World, text: str, status: str, direction: str, at: int) -> Cursor:
    try:
        cursor = msgspec.json.decode(base64.urlsafe_b64decode(text), type=Cursor)
    except (binascii.Error, ValueError):
        raise invalid("cursor: Invalid cursor") from None
    if (cursor.status, cursor.direction) != (status, direction):
        raise invalid("cursor: Invalid cursor")
    lifetime = world.cursor_lifetime
    if lifetime is not None and at - cursor.issued > lifetime * 1000:
        raise invalid("cursor: Expired cursor")
    return cursor
