"""Reads responses so that one bad part spoils no whole.

A response is decoded strictly first, in one go. Only where that fails is it taken apart, level by
level, down to the part that can't be read: that field is then as if it were absent, that element of
a list is left out, and the rest is taken. The place of each is reported, never its value.
"""

import functools
import re
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

import msgspec

T = TypeVar("T")

# A pair of surrogates, one alone, or an escaped backslash, after which "u" begins no escape.
_ESCAPES = re.compile(
    rb"\\\\"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_REPLACEMENT = rb"\ufffd"
# All up to the next bracket that stands outside of a string.
_TO_BRACKET = re.compile(rb'[^"\[\]{}]*+(?>"[^"\\]*+(?>\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+', re.DOTALL)
_DEEPEST = 20
"""Lists and objects within each other; the models have seven."""
_MOST_LISTS = 500_000
"""In a response that is nested too deep to be decoded, objects included."""
_MOST_IGNORED = 10_000
_MOST_COMMAS = 2_000_000
"""In a list that is taken apart; 25,000 steps with five failed attempts each have a million."""


class Unreadable(ValueError):  # noqa: N818 - reads as what happened
    """Nothing can be made of a value."""


class Reader(Generic[T]):
    """Reads one kind of response.

    Args:
        kind: A msgspec type. A struct in it that has a class method `from_text` is also read from
            a text.
    """

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        self._decode = _decoder(kind)  # type: ignore[arg-type]

    def read(self, body: bytes | bytearray) -> tuple[T, list[str]]:
        """A response, and the places in it that could not be read (`$.result[3].ended_on`).

        Raises:
            msgspec.MsgspecError: it isn't JSON, or nothing can be made of it; the message names
                the place and the types, never a value.
            RecursionError: it is nested too deep, in too many places.
        """
        try:
            return self._decode(body), []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problem = error
        body = _whole_characters(body)
        try:
            try:
                return self._parts(body)
            except RecursionError:
                return self._parts(_shallow(body))
        except Unreadable:
            raise problem from None

    def _parts(self, body: bytes) -> tuple[T, list[str]]:
        ignored: list[str] = []
        return _read(body, self.kind, "$", ignored), ignored


def _whole_characters(body: bytes | bytearray) -> bytes:
    """The same with U+FFFD for each half of a surrogate pair, which engines send where a text was
    cut in the middle of a character, and for bytes that are no UTF-8."""
    body = body.decode("utf-8", "replace").encode()
    return _ESCAPES.sub(lambda m: _REPLACEMENT if len(m[0]) == 6 else m[0], body)


def _shallow(body: bytes) -> bytes:
    """The same with null for each list and object that is nested deeper than any that is read."""
    if body.count(b"[") + body.count(b"{") > _MOST_LISTS:
        raise RecursionError
    out, depth, taken, at = bytearray(), 0, 0, 0
    while (match := _TO_BRACKET.match(body, at)) and match.end() < len(body):
        at = match.end() + 1
        if body[at - 1] in b"[{":
            depth += 1
            if depth == _DEEPEST + 1:
                out += body[taken : at - 1] + b"null"
        elif body[at - 1] in b"]}":
            depth -= 1
            if depth == _DEEPEST:
                taken = at
        else:
            break  # a string that doesn't end
    return bytes(out + body[taken:])


@functools.cache
def _decoder(kind: Any, *, strict: bool = True) -> Callable[[bytes | bytearray | msgspec.Raw], Any]:
    return msgspec.json.Decoder(kind, strict=strict).decode


def _read(data: Any, kind: Any, place: str, ignored: list[str]) -> Any:
    try:
        return _decoder(kind)(data)
    except msgspec.ValidationError:
        return _read_parts(data, _without_none(kind), place, ignored)


def _read_parts(data: Any, kind: Any, place: str, ignored: list[str]) -> Any:
    container = get_origin(kind) or kind
    if get_origin(kind) is Annotated and get_args(kind)[0] in (int, float):
        return _raw(data, kind, strict=False)  # a number that is written as a text
    if container is list:
        if bytes(data).count(b",") > _MOST_COMMAS:
            raise Unreadable
        (item,) = get_args(kind)
        elements = enumerate(_raw(data, list[msgspec.Raw]))
        found = _readable(elements, lambda _: item, lambda n: f"{place}[{n}]", ignored)
        return [value for _, value in found]
    if container is dict:
        _, item = get_args(kind)
        elements = _raw(data, dict[str, msgspec.Raw]).items()
        # Its keys are data, which must not show in a log.
        return dict(_readable(elements, lambda _: item, lambda _: f"{place}[*]", ignored))
    if isinstance(container, type) and issubclass(container, msgspec.Struct):
        return _read_struct(data, kind, container, place, ignored)
    raise Unreadable


def _read_struct(data: Any, kind: Any, struct: Any, place: str, ignored: list[str]) -> Any:
    from_text = getattr(struct, "from_text", None)
    if from_text is not None and bytes(memoryview(data)[:1]) == b'"':
        return from_text(_raw(data, str))
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values = [(k, v) for k, v in _raw(data, dict[str, msgspec.Raw]).items() if k in fields]
    found = _readable(
        values, lambda name: fields[name].type, lambda name: f"{place}.{name}", ignored
    )
    return struct(**{fields[name].name: value for name, value in found})


def _readable(
    parts: Any, kind: Callable[[Any], Any], place: Callable[[Any], str], ignored: list[str]
) -> Iterator[tuple[Any, Any]]:
    for key, data in parts:
        where = place(key)
        try:
            yield key, _read(data, kind(key), where, ignored)
        except Unreadable:
            if len(ignored) >= _MOST_IGNORED:
                raise
            ignored.append(where)


def _raw(data: Any, kind: Any, *, strict: bool = True) -> Any:
    try:
        return _decoder(kind, strict=strict)(data)
    except msgspec.ValidationError:
        raise Unreadable from None


def _without_none(kind: Any) -> Any:
    """What an optional type holds; one of several kinds is as it is."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    held = [one for one in get_args(kind) if one not in (types.NoneType, msgspec.UnsetType)]
    return held[0] if len(held) == 1 else kind
