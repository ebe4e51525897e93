"""Whatever valid values people think of, the chart never renders something invalid."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helm.chart import KUBERNETES, SMALLEST, kubernetes_errors, over, render
from tests.helm.pod_security import violations
from tests.node import Validator, validator
from tools import alert_rules

pytestmark = pytest.mark.process

# Names that YAML would take for something else are among them.
TRICKY = st.sampled_from(["true", "null", "on", "y", "1e3", "0x10", "1.0", "1-2"])
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?", fullmatch=True) | TRICKY.filter(
    lambda name: re.fullmatch("[a-z][-a-z0-9]*", name) is not None
)
LABEL_VALUES = st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", fullmatch=True)
LABEL_KEYS = st.from_regex(
    r"([a-z][a-z0-9]{0,9}\.example\.com/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,20}[A-Za-z0-9]",
    fullmatch=True,
)
LABELS = st.dictionaries(LABEL_KEYS, LABEL_VALUES | TRICKY, max_size=3)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)
ANNOTATIONS = st.dictionaries(LABEL_KEYS, TEXTS | TRICKY, max_size=3)
DURATIONS = st.sampled_from(["", "30s", "1m30s", "500ms", "1h"])
QUANTITIES = st.sampled_from(["1", "100m", "1Gi", "0.5", "1500M"])
BOOLEANS = st.booleans()
PEERS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"podSelector": st.fixed_dictionaries({"matchLabels": LABELS})}),
        st.just({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}),
    ),
    max_size=2,
)


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these keys."""
    return st.fixed_dictionaries({}, optional=keys)


MONITOR = {
    "namespace": NAMES | st.just(""),
    "labels": LABELS,
    "interval": DURATIONS,
    "scrapeTimeout": DURATIONS,
    "scheme": st.sampled_from(["", "http", "https"]),
    "params": st.dictionaries(TEXTS, st.lists(TEXTS, max_size=2), max_size=2),
    "proxyUrl": st.sampled_from(["", "http://proxy:3128"]),
    "sampleLimit": st.integers(0, 10**9),
    "honorLabels": BOOLEANS,
    "relabelings": st.lists(
        st.just({"action": "replace", "targetLabel": "cluster", "replacement": "a"}), max_size=2
    ),
}
LABEL_LISTS = st.lists(LABEL_KEYS, max_size=2)
MONITORS = st.one_of(
    some(
        serviceMonitor=some(
            enabled=BOOLEANS,
            jobLabel=LABEL_KEYS,
            targetLabels=LABEL_LISTS,
            podTargetLabels=LABEL_LISTS,
            **MONITOR,
        )
    ),
    some(
        podMonitor=some(
            enabled=BOOLEANS, jobLabel=LABEL_KEYS, podTargetLabels=LABEL_LISTS, **MONITOR
        )
    ),
    some(scrapeConfig=some(enabled=BOOLEANS, jobName=TEXTS, **MONITOR)),
)
HOSTS = st.from_regex(r"[a-z]([-a-z0-9]{0,9}[a-z0-9])?(\.[a-z][a-z0-9]{0,5}){1,2}", fullmatch=True)
HOST_LISTS = st.lists(HOSTS, min_size=1, max_size=2, unique=True)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {
            "name": NAMES,
            "image": st.just("x:1"),
            "securityContext": st.just(
                {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            ),
        },
        optional={"args": st.lists(TEXTS, max_size=2)},
    ),
    max_size=1,
)
VALUES = some(
    image=some(
        repository=st.sampled_from(["x", "registry.example.com:5000/a/b"]),
        tag=st.sampled_from(["", "1", "1.0", "latest", "v1.2.3-rc.1_x"]),
        digest=st.sampled_from(["", "sha256:" + "a1" * 32]),
        pullPolicy=st.sampled_from(["Always", "IfNotPresent", "Never"]),
    ),
    imagePullSecrets=st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2),
    nameOverride=NAMES | st.just(""),
    fullnameOverride=NAMES | st.just(""),
    namespaceOverride=NAMES | st.just(""),
    commonLabels=LABELS,
    ingress=st.fixed_dictionaries(
        {"hosts": HOST_LISTS},
        optional={
            "enabled": BOOLEANS,
            "className": NAMES | st.just(""),
            "tls": st.lists(some(secretName=NAMES, hosts=HOST_LISTS), max_size=1),
            "annotations": ANNOTATIONS,
            "labels": LABELS,
        },
    ),
    httpRoute=st.fixed_dictionaries(
        {"parentRefs": st.lists(st.fixed_dictionaries({"name": NAMES}), min_size=1, max_size=2)},
        optional={
            "enabled": BOOLEANS,
            "hostnames": HOST_LISTS,
            "annotations": ANNOTATIONS,
            "labels": LABELS,
        },
    ),
    initContainers=CONTAINERS,
    extraContainers=CONTAINERS.filter(lambda cs: all(c["name"] != "exporter" for c in cs)),
    workloadLabels=LABELS,
    workloadAnnotations=ANNOTATIONS,
    hostAliases=st.lists(
        st.fixed_dictionaries({"ip": st.just("10.0.0.1"), "hostnames": HOST_LISTS}), max_size=2
    ),
    config=some(
        poll=some(interval=st.sampled_from(["5s", "1m"])),
        state=some(path=TEXTS | st.none()),
        log=some(level=st.sampled_from(["debug", "info"])),
        api=some(url=TEXTS),
    ),
    webConfig=st.fixed_dictionaries(
        {"existingSecret": NAMES},
        optional={
            "probes": st.sampled_from(["http", "https", "tcp"]),
            "probeHeaders": st.lists(
                st.fixed_dictionaries({"name": st.just("Authorization"), "value": TEXTS}),
                max_size=1,
            ),
        },
    ),
    persistence=some(
        enabled=BOOLEANS,
        size=QUANTITIES,
        storageClass=NAMES | st.sampled_from(["", "-"]),
        annotations=ANNOTATIONS,
        whenDeleted=st.sampled_from(["Retain", "Delete"]),
    ),
    service=some(
        type=st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]),
        port=st.integers(1, 65535),
        annotations=ANNOTATIONS,
        labels=LABELS,
    ),
    containerPort=st.integers(1024, 65535),
    serviceAccount=some(create=BOOLEANS, name=NAMES | st.just(""), annotations=ANNOTATIONS),
    resources=some(
        requests=st.dictionaries(st.sampled_from(["cpu", "memory"]), QUANTITIES),
        limits=st.dictionaries(st.sampled_from(["cpu", "memory"]), QUANTITIES),
    ),
    livenessProbe=some(initialDelaySeconds=st.integers(0, 999), periodSeconds=st.integers(1, 99)),
    terminationGracePeriodSeconds=st.integers(5, 999),
    extraArgs=st.lists(TEXTS.map("--{}".format), max_size=2),
    extraEnv=st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(["A", "b.c", "NO"]), "value": TEXTS}),
        max_size=2,
    ),
    podLabels=LABELS,
    podAnnotations=ANNOTATIONS,
    nodeSelector=LABELS,
    priorityClassName=NAMES | st.just(""),
    podDisruptionBudget=some(
        enabled=BOOLEANS, maxUnavailable=st.integers(0, 9) | st.sampled_from(["0%", "100%"])
    ),
    networkPolicy=some(enabled=BOOLEANS, ingressFrom=PEERS, egressTo=PEERS),
    prometheusRule=some(
        enabled=BOOLEANS,
        labels=LABELS,
        alertLabels=st.dictionaries(
            st.from_regex("[a-z][a-z_]{0,9}", fullmatch=True), TEXTS, max_size=2
        ),
        disabled=st.lists(
            st.sampled_from([rule["alert"] for rule in alert_rules.rules()]), unique=True
        ),
        parameters=some(
            stuckAfterSeconds=st.integers(1, 10**7),
            errorBudget=st.floats(1e-6, 1),
            runbooks=st.just("https://example.com/x"),
        ),
        stuckAfterSeconds=st.dictionaries(NAMES, st.integers(1, 10**7), max_size=2),
    ),
    dashboards=some(enabled=BOOLEANS, labels=LABELS, annotations=ANNOTATIONS),
)
REPLICAS: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {
        "replicaCount": st.integers(1, 100),
        "state": st.fixed_dictionaries(
            {"existingSecret": NAMES}, optional={"urlKey": NAMES, "passwordKey": NAMES}
        ),
    }
)
RELEASES = st.from_regex(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?(\.[a-z0-9]{1,9})?", fullmatch=True)


@pytest.fixture(scope="module")
def schemas() -> Iterator[Validator]:
    with validator() as running:
        yield running


@given(
    st.builds(over, st.builds(over, VALUES, MONITORS), REPLICAS),
    RELEASES,
    NAMES | st.sampled_from(["123", "1e3"]),
    st.sampled_from(KUBERNETES),
)
@example({"workloadAnnotations": {"a": "="}}, "exporter", "monitoring", KUBERNETES[0])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_valid_values_render_valid_objects(
    schemas: Validator, values: dict[str, Any], name: str, namespace: str, version: str
) -> None:
    release = render(SMALLEST, values, name=name, namespace=namespace)
    for o in release.custom:
        assert schemas.problems(o) == []
    for o in release.native:
        assert kubernetes_errors(o, version) == ""
    for o in release.objects:
        assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", o["metadata"]["name"])
    identities = [
        (o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]) for o in release.objects
    ]
    assert len(set(identities)) == len(identities)
    pod = release.pod
    assert violations(pod["spec"]) == violations(release.the("Pod")["spec"]) == []
    for service in release.of_kind("Service"):
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (config, *_) = release.of_kind("ConfigMap")
    assert msgspec.yaml.decode(config["data"]["config.yaml"]) == over(
        SMALLEST["config"], values.get("config", {})
    )
