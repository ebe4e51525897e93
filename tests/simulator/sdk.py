"""Holds answers against the types of Cloudflare's official SDK, strictly.

The SDK itself builds its models without validating, so that any answer passes.
"""

import json
from typing import Any, TypeVar

import pydantic
from cloudflare.types.workflows import InstanceGetResponse

Model = TypeVar("Model", bound=pydantic.BaseModel)


def check(model: type[Model], answer: Any) -> Model:
    """The answer as the SDK's model.

    Raises:
        pydantic.ValidationError: a field is missing or of another type.
        AssertionError: the answer has a field that the SDK doesn't know.
    """
    parsed = model.model_validate_json(json.dumps(answer), strict=True)
    assert unknown(parsed) == []
    return parsed


def check_instance(answer: dict[str, Any]) -> InstanceGetResponse:
    """An instance's answer, whose types leave out two things that the API documents or shows.

    A simple answer has no steps; and the real engine's output is null until there is one.
    """
    steps = answer.get("steps", [])
    output = "" if answer["output"] is None else answer["output"]
    return check(InstanceGetResponse, answer | {"steps": steps, "output": output})


def unknown(value: Any, path: str = "") -> list[str]:
    """The paths of all fields that a parsed answer has beyond its model."""
    if isinstance(value, list):
        return [p for index, item in enumerate(value) for p in unknown(item, f"{path}[{index}]")]
    if not isinstance(value, pydantic.BaseModel):
        return []
    found = [f"{path}.{name}" for name in value.model_extra or {}]
    for name in type(value).model_fields:
        found += unknown(getattr(value, name), f"{path}.{name}")
    return found
