"""The chart as Helm's own engine renders it, and what a rendered object must be."""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import helm_python as helm
import kubernetes_validate
import yaml

from tools import CHART

Object = dict[str, Any]
Values = Mapping[str, Any]

CUSTOM = {
    "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
    "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
}
"""Groups of custom resources, each with the npm package that has its schemas and types."""

KUBERNETES = ("1.25", "1.28", "1.31", "1.34", kubernetes_validate.latest_version())
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
        template: Object = self.the("StatefulSet")["spec"]["template"]
        return template


def group(value: Object) -> str:
    """The group of an object's API."""
    found: str = value["apiVersion"].rpartition("/")[0]
    return found


# It reads its schemas, a megabyte each, for each object.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)


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
    files = _chart().render(merged, name=name, namespace=namespace)
    objects, notes = [], ""
    for path, text in files.items():
        if path.endswith("NOTES.txt"):
            notes = text
        else:
            # libyaml's loader: most of the time of these tests would be spent in Python's.
            objects += [o for o in yaml.load_all(text, Loader=yaml.CSafeLoader) if o]
    return Release(objects, notes)


def over(base: Values, more: Values) -> dict[str, Any]:
    """`more` over `base`, mappings merged, as Helm does."""
    merged = dict(base)
    for key, value in more.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = over(old, value) if both else value  # type: ignore[arg-type]
    return merged


def kubernetes_mistakes(value: Object, version: str) -> str:
    """What Kubernetes' schema of that version says of an object, unknown fields included."""
    try:
        kubernetes_validate.validate(value, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{value['kind']} {'.'.join(map(str, error.path))}: {error.message}"
    return ""
