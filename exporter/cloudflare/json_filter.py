"""Skims JSON as it comes: keeps what the models read, and drops every other string, list and object
before it is held. An instance's full answer may hold gigabytes of outputs; its steps without them
are a few megabytes.

A value is dropped by its key, wherever that stands. Numbers, and keys that are written with an
escape, are kept: msgspec, which reads what is left, knows what to do with them. What is dropped is
not checked, but for its end. The searching is done by regular expressions that never backtrack, so
the time is linear in the bytes, and Python's own part small: a turn for each value dropped.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

import msgspec.inspect

_LONGEST_TOKEN = 64 * 1024
"""Bytes of a string that is kept, with the space around it; names and times are far shorter. Of a
longer one nothing is kept."""
_DEEPEST = 10_000
"""Lists and objects within each other in what is dropped, give or take a few: more than JavaScript
engines can write."""
_MESSAGE = 200
"""Characters kept of a message, which is customers' data and only compared."""

# Strings without their first quote; bytes, so that a dot is any byte, not any character.
_TO_QUOTE = rb'[^"\\]*+(?>\\.[^"\\]*+)*+'
_STRING = rb'"' + _TO_QUOTE + rb'"'
# As much as can be kept at once, up to a string of which that can't be said (yet).
_KEPT = (
    rb'(?>[^"]++'  # outside strings
    rb'|"(?:%s)"\s*+:'  # a key that is read
    rb"|" + _STRING + rb'(?=\s*+(?:[^\s:]|:\s*+[^\s"{\[]))'  # no key, or that of a number
    rb'|"[^"\\]*+(?>\\.[^"\\]*+)++"\s*+:)*+'  # a key with an escape
)
_DROPPED_KEY = re.compile(rb'"([^"\\]*+)"\s*+:\s*+(?=["{\[])')
_REST_OF_STRING = re.compile(_TO_QUOTE, re.DOTALL)
# The beginning of a string, cut where no escape and no character is torn apart.
_BEGINNING = re.compile(
    rb'(?:[ !#-\[\]-~]|\\["\\/bfnrt]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}'
    rb"|[\xf0-\xf4][\x80-\xbf]{3}){0,%d}" % _MESSAGE
)


def _within(levels: int) -> bytes:
    """What stands in a list or object, up to its end or to one that is nested deeper than that."""
    nested = rb"|[{\[]" + _within(levels - 1) + rb"[}\]]" if levels else b""
    return rb'(?>[^"{}\[\]]++|' + _STRING + nested + rb")*+"


_WITHIN = re.compile(_within(4), re.DOTALL)


class Refused(ValueError):  # noqa: N818 - reads as what happened
    """What came can't be an answer: the message says why."""


@functools.cache
def _kept(model: Any) -> re.Pattern[bytes]:
    """What is kept for a model: its keys and those of all models within it."""
    names = {name for name in _names(msgspec.inspect.type_info(model)) if name != "message"}
    return re.compile(_KEPT % b"|".join(re.escape(n.encode()) for n in sorted(names)), re.DOTALL)


def _names(kind: msgspec.inspect.Type) -> Iterator[str]:
    match kind:
        case msgspec.inspect.StructType(fields=fields):
            for field in fields:
                yield field.encode_name
                yield from _names(field.type)
        case msgspec.inspect.UnionType(types=kinds):
            for one in kinds:
                yield from _names(one)
        case msgspec.inspect.ListType(item_type=item):
            yield from _names(item)


class Skimmer:
    """Takes JSON in pieces, cut anywhere; what is left of it reads the same.

    Args:
        model: What the JSON is to be read as.
        most: Bytes that are kept at most.
        most_objects: Objects that are kept at most.
    """

    def __init__(self, model: Any, *, most: int, most_objects: int) -> None:
        self._kept = _kept(model)
        self._most = most
        self._objects_left = most_objects
        self._out = bytearray()
        self._left = b""
        """Of the last piece, what can't be judged without the next."""
        self._depth = 0
        """Lists and objects that are open in the value that is being dropped."""
        self._in_string = False
        """Whether a string that is being dropped is open."""

    def add(self, piece: bytes) -> None:
        """Takes the next piece.

        Raises:
            Refused: more is to be kept than may be, or what is dropped is nested too deep.
        """
        data, at, before = self._left + piece, 0, -1
        while before < at < len(data):
            before = at
            if self._in_string:
                at = self._drop_string(data, at)
            elif self._depth:
                at = self._drop_nested(data, at)
            else:
                at = self._keep(data, at)
                if at == before and len(data) - at > _LONGEST_TOKEN:
                    self._out += b'""'
                    self._in_string, at = True, at + 1
        self._left = data[at:]
        if self._objects_left < 0:
            raise Refused("too many steps and attempts")
        if len(self._out) > self._most:
            raise Refused(f"more than {self._most} bytes without outputs and params")

    def end(self) -> bytearray:
        """What is left of the whole; no JSON where it was cut short."""
        self._out += self._left
        self._left = b""
        return self._out

    def _keep(self, data: bytes, at: int) -> int:
        match = self._kept.match(data, at)
        assert match is not None, "it matches nothing at all, too"
        # Not a copy of it: most of a large answer is one match.
        self._out += memoryview(data)[at : match.end()]
        self._objects_left -= data.count(b"{", at, match.end())
        at = match.end()
        key = _DROPPED_KEY.match(data, at)
        if key is None:
            return at
        value = key.end()
        kept = b'"":0'
        self._in_string = data[value] == ord('"')
        self._depth = int(not self._in_string)
        if key[1] == b"message":
            kept = b'"message":null'
            if self._in_string:
                beginning = _BEGINNING.match(data, value + 1)
                assert beginning is not None, "it matches nothing at all, too"
                if beginning.end() + 4 > len(data):
                    # The next character, or its escape, isn't there yet.
                    self._in_string = False
                    return at
                kept = b'"message":"%s"' % beginning[0]
        self._out += kept
        return value + 1

    def _drop_string(self, data: bytes, at: int) -> int:
        """Goes to the end of a string, in a stride where nothing is escaped."""
        end = data.find(b'"', at)
        if data.find(b"\\", at, len(data) if end < 0 else end) >= 0:
            match = _REST_OF_STRING.match(data, at)
            assert match is not None, "it matches nothing at all, too"
            # Not at the quote: the piece ends, maybe within an escape.
            end = match.end()
            if data[end : end + 1] != b'"':
                return end
        if end < 0:
            return len(data)
        self._in_string = False
        return end + 1

    def _drop_nested(self, data: bytes, at: int) -> int:
        """Goes to the end of a list or object, or to a string in it whose end isn't there yet."""
        while self._depth:
            match = _WITHIN.match(data, at)
            assert match is not None, "it matches nothing at all, too"
            at = match.end()
            match data[at : at + 1]:
                case b"":
                    return at
                case b'"':
                    self._in_string = True
                    return at + 1
                case b"{" | b"[":
                    self._depth += 1
                    if self._depth > _DEEPEST:
                        raise Refused(f"nested more than {_DEEPEST} deep")
                case _:
                    self._depth -= 1
            at += 1
        return at
