"""Sizes in bytes: `256MiB`, `1GiB`."""

import re
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_BYTES = {"GiB": 1 << 30, "MiB": 1 << 20}
_PATTERN = re.compile(rf"([0-9]{{1,9}})({'|'.join(_BYTES)})")
_MOST = 1 << 40


class Size(int):
    """Bytes; reads and shows itself with a unit."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Reads a size such as `256MiB`.

        Raises:
            ValueError: `text` is no such size, zero or over 1024GiB; the message says what would
                be right.
        """
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError("not a size; write it with its unit, as in 64MiB or 1GiB")
        size = int(match[1]) * _BYTES[match[2]]
        if not 0 < size <= _MOST:
            raise ValueError("must be from 1MiB to 1024GiB")
        return cls(size)

    def __str__(self) -> str:
        unit = "MiB" if self % _BYTES["GiB"] else "GiB"
        return f"{self // _BYTES[unit]}{unit}"

    __repr__ = __str__

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.to_string_ser_schema(),
            json_schema_input_schema=core_schema.str_schema(pattern=f"^{_PATTERN.pattern}$"),
        )
