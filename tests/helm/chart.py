"""The chart as Helm's own engine renders it, and what a rendered object must be."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

import helm_python as helm
import yaml

from tools import CHART

Object = dict[str, Any]
Values = Mapping[str, Any]

CUSTOM = {
    "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
    "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
}
"""Groups of custom resources, each with the npm package that has its schemas and types."""

_NEWEST = ".".join(metadata.version("kubernetes-validate").split(".")[:2])
KUBERNETES = ("1.25", "1.28", "1.31", "1.34", _NEWEST)
"""From the oldest version that Chart.yaml allows to the newest one whose schemas are had."""

SMALLEST: Values = {
    "credentials": {"existingSecret": "cloudflare"},
    "config": {
        "accounts": [
            {
                "name": "production",
                "account_id": "023e105f4ecef8ad9ca31a8372d0c353",
                "api_token_file": "/run/secrets/cloudflare/token",
                "workflows": [{"name": "orders", "instances": ["order-1"]}],
            }
        ]
    },
}
"""What somebody has to say, and no more."""


class Release(NamedTuple):
    """What an installation would make."""

    objects: list[Object]
    notes: str

    @property
    def native(self) -> list[Object]:
        """What Kubernetes itself knows."""
        return [o for o in self.objects if group(o) not in CUSTOM]

    @property
    def custom(self) -> list[Object]:
        """What others define."""
        return [o for o in self.objects if group(o) in CUSTOM]

    def of_kind(self, kind: str) -> list[Object]:
        return [o for o in self.objects if o["kind"] == kind]

    def the(self, kind: str) -> Object:
        """The only one of its kind."""
        (found,) = self.of_kind(kind)
        return found

    @property
    def pod(self) -> Object:
        """The template of the pod."""
        template: Object = self.workload["spec"]["template"]
        return template

    @property
    def workload(self) -> Object:
        """What makes the pods."""
        (found,) = self.of_kind("StatefulSet") + self.of_kind("Deployment")
        return found


def group(value: Object) -> str:
    """The group of an object's API."""
    found: str = value["apiVersion"].rpartition("/")[0]
    return found


class _Loader(yaml.CSafeLoader):
    """Takes `=` for text, as Kubernetes does. libyaml's: most of the time of these tests would be
    spent in Python's."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value)


@cache
def _chart() -> helm.Chart:
    return helm.Chart.load(CHART)


def render(*values: Values, name: str = "exporter", namespace: str = "monitoring") -> Release:
    """Renders the chart with values, later ones over earlier ones.

    Raises:
        helm.HelmError: the values are refused.
    """
    merged: dict[str, Any] = {}
    for more in values:
        merged = over(merged, more)
    return _rendered(json.dumps(merged), name, namespace)


@cache  # many tests read the same release, and none changes it
def _rendered(values: str, name: str, namespace: str) -> Release:
    files = _chart().render(json.loads(values), name=name, namespace=namespace)
    objects, notes = [], ""
    for path, text in files.items():
        if path.endswith("NOTES.txt"):
            notes = text
        else:
            objects += [o for o in yaml.load_all(text, Loader=_Loader) if o]
    return Release(objects, notes)


def over(base: Values, more: Values) -> dict[str, Any]:
    """`more` over `base`, mappings merged, as Helm does."""
    merged = dict(base)
    for key, value in more.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = over(old, value) if both else value  # type: ignore[arg-type]
    return merged


@cache
def _validation() -> Any:
    """The module that has Kubernetes' schemas."""
    # Whoever needs no schema saves a second.
    import kubernetes_validate  # noqa: PLC0415

    # It reads its schemas, a megabyte each, and lists their versions for each object.
    utils = kubernetes_validate.utils
    utils.schema_contents = cache(utils.schema_contents)
    utils.all_versions = cache(utils.all_versions)
    return kubernetes_validate


def kubernetes_errors(value: Object, version: str) -> str:
    """What Kubernetes' schema of that version says of an object, unknown fields included."""
    return _errors(json.dumps(value), version)


@cache  # most cases have objects of others
def _errors(text: str, version: str) -> str:
    value = json.loads(text)
    try:
        _validation().validate(value, version, strict=True)
    except _validation().ValidationError as error:
        return f"{value['kind']} {'.'.join(map(str, error.path))}: {error.message}"
    return ""
