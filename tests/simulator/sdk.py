"""Holds responses against the types of Cloudflare's official SDK, strictly.

The SDK itself builds its models without validating, so that any response passes.
"""

import json
from typing import Any, TypeVar

import pydantic
from cloudflare.types.workflows import InstanceGetResponse

Model = TypeVar("Model", bound=pydantic.BaseModel)


def check(model: type[Model], response: Any) -> Model:
    """The response as the SDK's model.

    Raises:
        pydantic.ValidationError: a field is missing or of another type.
        AssertionError: the response has a field that the SDK doesn't know.
    """
    parsed = model.model_validate_json(json.dumps(response), strict=True)
    assert unknown(parsed) == []
    return parsed


def check_instance(response: dict[str, Any]) -> InstanceGetResponse:
    """An instance's response, whose types leave out two things that the API documents or shows.

    A simple response has no steps; and the real engine's output is null until there is one.
    """
    steps = response.get("steps", [])
    output = "" if response["output"] is None else response["output"]
    return check(InstanceGetResponse, response | {"steps": steps, "output": output})


def unknown(value: Any, path: str = "") -> list[str]:
    """The paths of all fields that a parsed response has beyond its model."""
    if isinstance(value, list):
        return [p for index, item in enumerate(value) for p in unknown(item, f"{path}[{index}]")]
    if not isinstance(value, pydantic.BaseModel):
        return []
    found = [f"{path}.{name}" for name in value.model_extra or {}]
    for name in type(value).model_fields:
        found += unknown(getattr(value, name), f"{path}.{name}")
    return found
