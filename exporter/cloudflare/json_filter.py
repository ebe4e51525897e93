"""Drops from JSON, while it arrives, each string, list and object that the models don't read.

The detail response of an instance may hold gigabytes of outputs; its steps without them are a few
megabytes.

A value is dropped by its key, at any depth. Numbers, and keys that contain an escape, stay: msgspec
ignores them later. Only the end of a dropped value is searched for. Regular expressions that never
backtrack do the search, so the time is linear in the bytes, and Python's share is one loop for each
value dropped.
"""

import functools
import re
from typing import Any

import msgspec

_MAX_STRING = 64 * 1024
"""Maximum bytes of a string that stays, with the space around it: names and times are far shorter.
A longer string becomes empty."""
_MAX_DEPTH = 10_000
"""Maximum levels of lists and objects in a dropped value, give or take a few: more than JavaScript
engines can write."""
_MAX_MESSAGE = 200
"""Characters that stay of an error's message. It is customers' data, and is only compared."""

# Strings without their first quote; bytes, so that a dot is any byte, not any character.
_TO_QUOTE = rb'[^"\\]*+(?>\\.[^"\\]*+)*+'
_STRING = rb'"' + _TO_QUOTE + rb'"'
# All that surely stays, up to a string that has to be dropped or whose end has not arrived.
_STAYS = (
    rb'(?>[^"]++'  # outside strings
    rb'|"(?:%s)"\s*+:'  # a key that the models read
    rb"|" + _STRING + rb'(?=\s*+(?:[^\s:]|:\s*+[^\s"{\[]))'  # a value, or the key of a number
    rb'|"[^"\\]*+(?>\\.[^"\\]*+)++"\s*+:)*+'  # a key with an escape
)
_DROPPED_KEY = re.compile(rb'"([^"\\]*+)"\s*+:\s*+(?=["{\[])')
_REST_OF_STRING = re.compile(_TO_QUOTE, re.DOTALL)
# The beginning of a string, cut between two characters or escapes.
_BEGINNING = re.compile(
    rb'(?:[ !#-\[\]-~]|\\["\\/bfnrt]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}'
    rb"|[\xf0-\xf4][\x80-\xbf]{3}){0,%d}" % _MAX_MESSAGE
)


def _within(levels: int) -> bytes:
    """Matches the inside of a list or object, to its end or to one nested deeper than `levels`."""
    nested = rb"|[{\[]" + _within(levels - 1) + rb"[}\]]" if levels else b""
    return rb'(?>[^"{}\[\]]++|' + _STRING + nested + rb")*+"


_WITHIN = re.compile(_within(4), re.DOTALL)


class InvalidBody(ValueError):  # noqa: N818 - reads as what happened
    """The body can't be a response of the API. The message says why."""


@functools.cache
def _stays(model: Any) -> re.Pattern[bytes]:
    """Matches what stays for a model: the values of the keys of this model and of all within it."""
    _, structs = msgspec.json.schema_components([model])
    names = {name for struct in structs.values() for name in struct["properties"]} - {"message"}
    return re.compile(_STAYS % b"|".join(re.escape(n.encode()) for n in sorted(names)), re.DOTALL)


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    """Where the match of a pattern ends that begins at this place."""
    match = pattern.match(data, at)
    assert match is not None, "each of the patterns also matches nothing"
    return match.end()


class JsonFilter:
    """Takes JSON in pieces, cut anywhere, and returns JSON that decodes to the same model.

    Args:
        model: The msgspec type that the JSON is decoded as.
        max_bytes: Of the JSON that stays.
        max_objects: In the JSON that stays.
    """

    def __init__(self, model: Any, *, max_bytes: int, max_objects: int) -> None:
        self._stays = _stays(model)
        self._max_bytes = max_bytes
        self._objects_left = max_objects
        self._out = bytearray()
        self._rest = b""
        """The end of the last piece: only the next one shows whether it stays."""
        self._depth = 0
        """Lists and objects that are open in the value being dropped."""
        self._in_string = False
        """Whether a string being dropped is open."""

    def add(self, piece: bytes) -> None:
        """Filters the next piece.

        Raises:
            InvalidBody: more stays than may, or a dropped value is nested too deep.
        """
        data, at, before = self._rest + piece, 0, -1
        while before < at < len(data):
            before = at
            if self._in_string:
                at = self._drop_string(data, at)
            elif self._depth:
                at = self._drop_nested(data, at)
            else:
                at = self._copy(data, at)
                if at == before and len(data) - at > _MAX_STRING:
                    self._out += b'""'
                    self._in_string, at = True, at + 1
        self._rest = data[at:]
        if self._objects_left < 0:
            raise InvalidBody("too many steps and attempts")
        if len(self._out) > self._max_bytes:
            raise InvalidBody(f"more than {self._max_bytes} bytes without outputs and params")

    def end(self) -> bytearray:
        """All that stays; invalid JSON where the body was cut short. To be called once."""
        self._out += self._rest
        return self._out

    def _copy(self, data: bytes, at: int) -> int:
        """Copies what stays, up to the first value to drop."""
        end = _end(self._stays, data, at)
        # A view, not one more copy: most of a large response is one match.
        self._out += memoryview(data)[at:end]
        self._objects_left -= data.count(b"{", at, end)
        key = _DROPPED_KEY.match(data, end)
        if key is None:
            return end
        value = key.end()
        is_string = data[value] == ord('"')
        replacement = b'"":0'
        if is_string and key[1] == b"message":
            cut = _end(_BEGINNING, data, value + 1)
            if cut + 4 > len(data):
                return end  # the next character, or its escape, has not arrived
            replacement = b'"message":"%s"' % data[value + 1 : cut]
        self._out += replacement
        self._in_string = is_string
        self._depth = int(not is_string)
        return value + 1

    def _drop_string(self, data: bytes, at: int) -> int:
        """Skips to the end of a string, at once if it holds no escape."""
        end = data.find(b'"', at)
        if data.find(b"\\", at, len(data) if end < 0 else end) >= 0:
            # A quote is next, or the piece ends, maybe inside an escape.
            return _end(_REST_OF_STRING, data, at)
        if end < 0:
            return len(data)
        self._in_string = False
        return end + 1

    def _drop_nested(self, data: bytes, at: int) -> int:
        """Skips past the next bracket that is nested deep or ends the value, or into a string in it
        whose end has not arrived."""
        at = _end(_WITHIN, data, at)
        match data[at : at + 1]:
            case b"":
                return at
            case b'"':
                self._in_string = True
            case b"{" | b"[":
                self._depth += 1
                if self._depth > _MAX_DEPTH:
                    raise InvalidBody(f"nested more than {_MAX_DEPTH} deep")
            case _:
                self._depth -= 1
        return at + 1
