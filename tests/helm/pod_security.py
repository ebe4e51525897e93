"""The *restricted* Pod Security Standard (Kubernetes' page "Pod Security Standards"), baseline
included."""

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(pod: dict[str, Any]) -> list[str]:
    """What a pod's spec does that the standard forbids."""
    return [*_of_pod(pod), *(v for c in _containers(pod) for v in _of_container(pod, c))]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [c for kind in ("initContainers", "containers") for c in pod.get(kind, [])]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield key
    for volume in pod.get("volumes", []):
        if forbidden := set(volume) - _VOLUMES - {"name"}:
            yield f"volume {volume['name']} is {forbidden}"
    context = pod.get("securityContext", {})
    if context.get("sysctls") or context.get("seLinuxOptions"):
        yield "sysctls or seLinuxOptions"
    if context.get("runAsUser") == 0:
        yield "the pod runs as root"


def _of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = {**pod.get("securityContext", {}), **own}
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort"
    if own.get("privileged") or own.get("procMount", "Default") != "Default":
        yield "privileged or procMount"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities that are not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities that are added"
