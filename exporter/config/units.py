"""Durations as Prometheus writes them (`15s`, `1h30m`), and sizes (`256MiB`)."""

import re
from typing import Annotated, Any, Self

from pydantic import ByteSize, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from exporter.config.validation import must

_MILLISECONDS = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
_LONGEST = 100 * _MILLISECONDS["y"]
_PATTERN = re.compile("".join(rf"(?:(?P<{u}>[0-9]+){u})?" for u in _MILLISECONDS))
_JSON_SCHEMA = core_schema.str_schema(
    min_length=1, pattern="^" + "".join(f"([0-9]+{u})?" for u in _MILLISECONDS) + "$"
)


class Duration(float):
    """Seconds; reads and shows itself in Prometheus' notation."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Reads a duration such as `15s`, `5m` or `1h30m`.

        Raises:
            ValueError: `text` isn't a duration, or is over 100 years; the message says what would
                be right.
        """
        match = _PATTERN.fullmatch(text) if isinstance(text, str) and 0 < len(text) < 64 else None
        if match is None:
            raise ValueError("not a duration; write it with its unit, as in 15s, 5m or 1h30m")
        milliseconds = sum(int(n) * _MILLISECONDS[u] for u, n in match.groupdict().items() if n)
        if milliseconds > _LONGEST:
            raise ValueError("must be at most 100y")
        return cls(milliseconds / 1000)

    def __str__(self) -> str:
        left, text = round(self * 1000), ""
        for unit, size in _MILLISECONDS.items():
            # Years and weeks only where they come out even: 36h reads better than 0w1d12h.
            if unit in ("y", "w") and left % size:
                continue
            count, left = divmod(left, size)
            text += f"{count}{unit}" if count else ""
        return text or "0s"

    __repr__ = __str__

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.to_string_ser_schema(),
            json_schema_input_schema=_JSON_SCHEMA,
        )


PositiveDuration = Annotated[Duration, must(bool, "must be longer than 0s")]
Size = Annotated[
    ByteSize,
    must(
        lambda size: 1 << 20 <= size <= 1 << 40,
        "must be from 1MiB to 1TiB; write it with its unit, as in 64MiB",
    ),
    WithJsonSchema({"type": "string", "pattern": "^[0-9.]+ ?[KMGT]i?B$"}),
]
"""Bytes, from 1 MiB to 1 TiB."""
