"""Decodes a response even if parts of it are invalid.

A response is first decoded strictly, as a whole. If that fails, it is decoded level by level, down
to the invalid part: an invalid field counts as absent, an invalid element of a list is left out,
and the rest is taken. The place of each is reported, never its value.
"""

import functools
import re
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

T = TypeVar("T")
_Part = tuple[Any, str, Any, msgspec.Raw]
"""A part of a value: its key, its place in the response, its type, and its JSON."""

# A pair of surrogates, one alone, or an escaped backslash, after which "u" begins no escape.
_ESCAPES = re.compile(
    rb"\\\\"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_REPLACEMENT = rb"\ufffd"
# All up to the next bracket outside of strings, and that bracket.
_TO_BRACKET = re.compile(
    rb'[^"\[\]{}]*+(?>"[^"\\]*+(?>\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+([\[\]{}])', re.DOTALL
)
_MAX_DEPTH = 20
"""Maximum levels of nested lists and objects; the models have seven."""
_MAX_BRACKETS = 500_000
"""Maximum opening brackets of a response that is nested too deep to be decoded as it is."""
_MAX_IGNORED = 10_000
_MAX_COMMAS = 2_000_000
"""Maximum commas in a list that is decoded by element. 25,000 steps with 5 failed attempts have a
million."""


def decode(body: bytes | bytearray, model: type[T]) -> tuple[T, list[str]]:
    """A response, and the places in it that were ignored (`$.result[3].ended_on`).

    Args:
        body: JSON.
        model: A msgspec type. A struct in it that has a class method `from_text` may also be a
            string in the response.

    Raises:
        msgspec.MsgspecError: it isn't JSON, or no part of it fits; the message names the place and
            the types, never a value.
        RecursionError: it is nested too deep, in too many places.
    """
    try:
        return _decoder(model)(body), []  # type: ignore[arg-type]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = error
    body = _with_valid_text(body)
    try:
        try:
            return _parts(body, model)
        except RecursionError:
            return _parts(_with_max_depth(body), model)
    except msgspec.ValidationError:
        raise problem from None


def _parts(body: bytes, model: type[T]) -> tuple[T, list[str]]:
    ignored: list[str] = []
    return _decode(body, model, "$", ignored), ignored


def _with_valid_text(body: bytes | bytearray) -> bytes:
    """The body with U+FFFD for each half of a surrogate pair, which engines send where they cut a
    text in the middle of a character, and for bytes that aren't UTF-8."""
    body = body.decode("utf-8", "replace").encode()
    return _ESCAPES.sub(lambda m: _REPLACEMENT if len(m[0]) == 6 else m[0], body)


def _with_max_depth(body: bytes) -> bytes:
    """The body with null for each list and object that is nested deeper than `_MAX_DEPTH`."""
    if body.count(b"[") + body.count(b"{") > _MAX_BRACKETS:
        raise RecursionError
    out, depth, taken, at = bytearray(), 0, 0, 0
    while match := _TO_BRACKET.match(body, at):
        at = match.end()
        if match[1] in b"[{":
            depth += 1
            if depth == _MAX_DEPTH + 1:
                out += body[taken : at - 1] + b"null"
        else:
            depth -= 1
            if depth == _MAX_DEPTH:
                taken = at
    return bytes(out + body[taken:])


@functools.cache
def _decoder(kind: Any, *, strict: bool = True) -> Callable[[bytes | bytearray | msgspec.Raw], Any]:
    return msgspec.json.Decoder(kind, strict=strict).decode


def _decode(data: Any, kind: Any, place: str, ignored: list[str]) -> Any:
    """What is valid of a value of this type.

    Raises:
        msgspec.ValidationError: it doesn't fit the type, and no part of it does.
    """
    try:
        return _decoder(kind)(data)
    except msgspec.ValidationError:
        kind = _without_none(kind)
    container = get_origin(kind) or kind
    if container is Annotated and get_args(kind)[0] in (int, float):
        return _decoder(kind, strict=False)(data)  # a number in a string
    if container is list and bytes(data).count(b",") <= _MAX_COMMAS:
        (item,) = get_args(kind)
        elements = enumerate(_decoder(list[msgspec.Raw])(data))
        parts = ((n, f"{place}[{n}]", item, element) for n, element in elements)
        return [value for _, value in _valid(parts, ignored)]
    if container is dict:
        _, item = get_args(kind)
        values = _decoder(dict[str, msgspec.Raw])(data).items()
        # Its keys are data, which must not show in a log.
        return dict(_valid(((key, f"{place}[*]", item, value) for key, value in values), ignored))
    if isinstance(container, type) and issubclass(container, msgspec.Struct):
        return _decode_struct(data, kind, container, place, ignored)
    raise msgspec.ValidationError


def _decode_struct(data: Any, kind: Any, struct: Any, place: str, ignored: list[str]) -> Any:
    from_text = getattr(struct, "from_text", None)
    if from_text is not None and bytes(memoryview(data)[:1]) == b'"':
        return from_text(_decoder(str)(data))
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    parts = (
        (fields[name].name, f"{place}.{name}", fields[name].type, value)
        for name, value in _decoder(dict[str, msgspec.Raw])(data).items()
        if name in fields
    )
    return struct(**dict(_valid(parts, ignored)))


def _valid(parts: Iterable[_Part], ignored: list[str]) -> Iterator[tuple[Any, Any]]:
    """The keys and values of the parts that are valid; adds the places of the others to
    `ignored`."""
    for key, place, kind, data in parts:
        try:
            yield key, _decode(data, kind, place, ignored)
        except msgspec.ValidationError:
            if len(ignored) >= _MAX_IGNORED:
                raise
            ignored.append(place)


def _without_none(kind: Any) -> Any:
    """The type within an optional one; a union of several stays."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    present = [one for one in get_args(kind) if one not in (types.NoneType, msgspec.UnsetType)]
    return present[0] if len(present) == 1 else kind
