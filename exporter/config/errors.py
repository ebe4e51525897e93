"""Messages about a wrong configuration: where, what is wrong, and what would be right."""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from exporter.config.secrets import LIKE_A_SECRET
from exporter.config.settings import Settings, paths
from exporter.config.validation import Loc

_SECRETS = frozenset({"api_token", "api_key"})

_REPLIES = {
    "missing": "is missing",
    "invalid_key": "a key must be text",
    "int": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "bool": "must be true or false",
    "float": "must be a number",
    "path": "must be the path of a file",
    "byte": "not a size; write it with its unit, as in 64MiB or 1GiB",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
"""What to say, by pydantic's type of an error, or by the first word of its type."""
_REMOVED = {
    "shard": "removed; for several replicas, set state.url to a PostgreSQL that they share, and "
    "give them the same configuration (docs/kubernetes.md)",
}
"""Keys that were removed, and what replaces them."""
_WORDS = {
    "Value error, ": "",
    "Input should be less than or equal to": "must be at most",
    "Input should be greater than or equal to": "must be at least",
    "Input should be": "must be",
}


class ConfigError(Exception):
    """The configuration can't be used; `problems` holds a line for each thing that is wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = [*problems]


@contextmanager
def collected(into: list[str]) -> Iterator[None]:
    """Adds the problems of a `ConfigError` to a list, so that others can still be found."""
    try:
        yield
    except ConfigError as error:
        into += error.problems


def line(error: ErrorDetails, origin: str = "", *, root: type[BaseModel] = Settings) -> str:
    """One problem, in one line.

    Args:
        error: Pydantic's error, with its place in the tree of settings.
        origin: The flag or variable that the value came from; empty: the file.
        root: The model of the whole tree.
    """
    loc, kind, given = error["loc"], error["type"], error["input"]
    keys = _keys(loc, root)
    where = _path(loc) + (f" (from {origin})" if origin else "")
    match kind:
        case "extra_forbidden":
            return f"{where}: {_unknown_key(loc, root)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            kind = "a mapping in JSON" if origin else "a mapping"
            examples = f" with keys such as {', '.join(keys[:3])}" if keys else ""
            defaults = "; {} takes the defaults" if loc[-1:] == ("discover",) else ""
            return f"{where}: must be {kind}{examples}{defaults}"
        case "list_type" if origin:
            return f"{where}: must be a list, in JSON{'' if keys else ' or with commas'}"
        case "list_type" if keys:
            return f"{where}: must be a list; begin each item with a dash, as in '- {keys[0]}: …'"
        case "list_type":
            return f"{where}: must be a list, as in [a, b]{_shown(loc, given, root)}"
    reply = _REPLIES.get(kind) or _REPLIES.get(kind.partition("_")[0], error["msg"])
    for pydantics, ours in _WORDS.items():
        reply = reply.replace(pydantics, ours)
    if kind == "string_type" and isinstance(given, int | float):
        reply += "; put it in quotes"
    return f"{where}: {reply}{_shown(loc, given, root)}"


def _shown(loc: Loc, given: object, root: type[BaseModel]) -> str:
    """The value, if it can't hold a secret: it is that of a known key that isn't a section, and no
    URL with a user, a query or a fragment, nor a token in place of an id."""
    takes_a_value = _names(loc) in _known(root) and not _keys(loc, root)
    if not takes_a_value or not isinstance(given, str | int | float):
        return ""
    if _SECRETS & set(loc) or loc == ("state", "url"):
        return ""
    text = str(given)
    # A glob may hold `?`, and a name `#`.
    hidden = "[@?#]" if "url" in loc else "@"
    if re.search(hidden, text) or ("instances" not in loc and LIKE_A_SECRET.fullmatch(text)):
        return ""
    return f" (it is {text[:60]!r})"


def _path(loc: Loc) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{_word(part)}" for part in loc)
    return "".join(parts).removeprefix(".") or "configuration"


def _word(key: str) -> str:
    """The beginning of a key that can be shown: `api_token:abc`, without a space, is a key in
    YAML."""
    shown = re.sub(r"(?s)[^A-Za-z0-9_.-].*", "", key)[:40]
    return shown if shown == key else f"{shown}…"


def _unknown_key(loc: Loc, root: type[BaseModel]) -> str:
    if (removed := _path(loc)) in _REMOVED:
        return _REMOVED[removed]
    name, known = str(loc[-1]), _keys(loc[:-1], root)
    if "." in name and name in dict(paths(root)):
        return f"unknown key; write {name.replace('.', ': {')}: …{'}' * name.count('.')}"
    meant = [path for path, _ in paths(root) if path.rpartition(".")[2] == name]
    meant += [_path((*loc[:-1], near)) for near in difflib.get_close_matches(_word(name), known)]
    if meant:
        return f"unknown key; did you mean {meant[0]}?"
    return f"unknown key; known here: {', '.join(known)}"


def _keys(loc: Loc, root: type[BaseModel]) -> list[str]:
    """The keys that are known at a place in the tree."""
    place = _names(loc)
    return [names[-1] for names in _known(root) if names[:-1] == place]


def _known(root: type[BaseModel]) -> list[list[str]]:
    """Every key by the names on the way to it."""
    return [path.replace("[]", "").split(".") for path, _ in paths(root)]


def _names(loc: Loc) -> list[str]:
    return [part for part in loc if isinstance(part, str)]
