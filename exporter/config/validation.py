"""Checks a section of the configuration, and reports everything that is wrong with it at once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

Loc = tuple[int | str, ...]
"""The path of a key or of an item in a list, as pydantic writes it."""
Problem = tuple[Loc, str]
"""Where something is wrong, relative to the section that finds it, and what."""


class Section(BaseModel):
    """A mapping in the configuration.

    Unknown keys are refused. A key that is null counts as absent, unless null is one of its values.
    The docstring of a key is also its description in help and docs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def problems(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        """What is wrong with the section's keys together, though each by itself may be right.

        Pydantic runs the validators of a whole model only if each of its keys is right. This runs
        in any case, so that everything is reported at once.

        Args:
            given: The keys that have a value. Their types aren't checked yet.
        """
        del given
        return iter(())

    @model_validator(mode="wrap")
    @classmethod
    def _everything_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        given = {key: value for key, value in data.items() if value is not None}
        nulls = {key: None for key in data.keys() - given.keys() if cls._takes_null(key)}
        lines = [_details(loc, "value_error", text) for loc, text in cls.problems(given)]
        try:
            section = handler(given | nulls)
        except ValidationError as error:
            lines = [
                *(_details(e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors()),
                *lines,
            ]
        if lines:
            raise ValidationError.from_exception_data(cls.__name__, lines, hide_input=True)
        return section

    @classmethod
    def _takes_null(cls, key: str) -> bool:
        """Whether null is passed on: if it is a value of the key, or the key is unknown and
        refused."""
        field = cls.model_fields.get(key)
        return field is None or type(None) in get_args(field.annotation)


def _details(loc: Loc, kind: str, text: str, given: object = None) -> InitErrorDetails:
    error = PydanticCustomError(kind, "{text}", {"text": text})
    return InitErrorDetails(type=error, loc=loc, input=given)


def must(test: Callable[[Any], object], problem: str) -> AfterValidator:
    """Refuses the values that fail a test."""

    def check(value: Any) -> Any:
        if not test(value):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def duplicates(loc: Loc, names: Iterable[object], advice: str = "") -> Iterator[Problem]:
    """The names that a list holds more than once, with `advice` if that isn't plain."""
    counts = Counter(name for name in names if isinstance(name, str))
    if twice := sorted(name for name, count in counts.items() if count > 1):
        yield loc, f"listed twice: {', '.join(twice)}{advice}"


def mappings(items: object) -> list[tuple[int, dict[str, Any]]]:
    """The items of a list that are mappings, each with its index."""
    listed = items if isinstance(items, list) else []
    return [(index, item) for index, item in enumerate(listed) if isinstance(item, dict)]
