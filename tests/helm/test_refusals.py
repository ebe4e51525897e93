"""Wrong values are refused before anything is changed, each with a message that says which."""

import json
from typing import Any

import helm_python as helm
import pytest
import yaml

from exporter.config.settings import leaves
from tests.helm.chart import SMALLEST, render
from tools import CHART, alert_rules
from tools.chart_files import values as documented_values

ACCOUNT = SMALLEST["config"]["accounts"][0]


def account(**keys: Any) -> dict[str, Any]:
    return {"config": {"accounts": [{**ACCOUNT, **keys}]}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown value": ({"imgae": {}}, "additional properties 'imgae' not allowed"),
    "unknown value below": (
        {"image": {"name": "x"}},
        "at '/image': additional properties 'name' not allowed",
    ),
    "number for a tag": ({"image": {"tag": 1.0}}, "at '/image/tag': got number, want string"),
    "bad digest": ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match"),
    "bad pull policy": (
        {"image": {"pullPolicy": "always"}},
        "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
    ),
    "text for a switch": (
        {"persistence": {"enabled": "yes"}},
        "at '/persistence/enabled': got string, want boolean",
    ),
    "bad size": (
        {"persistence": {"size": "1 GB"}},
        "at '/persistence/size': '1 GB' does not match",
    ),
    "port of root": ({"containerPort": 80}, "at '/containerPort': minimum: got 80, want 1,024"),
    "port that is none": ({"service": {"port": 70000}}, "at '/service/port': maximum"),
    "number for a label": (
        {"podLabels": {"version": 1}},
        "at '/podLabels/version': got number, want string",
    ),
    "number for an annotation": (
        {"podAnnotations": {"port": 9734}},
        "at '/podAnnotations/port': got number, want string",
    ),
    "number for a variable": (
        {"extraEnv": [{"name": "A", "value": 1}]},
        "at '/extraEnv/0/value': got number, want string",
    ),
    "a flag that is none": ({"extraArgs": ["log.level=debug"]}, "at '/extraArgs/0'"),
    "a volume of the chart's own": (
        {"extraVolumes": [{"name": "state", "emptyDir": {}}]},
        "at '/extraVolumes/0/name'",
    ),
    "interval with a space": (
        {"serviceMonitor": {"interval": "30 s"}},
        "at '/serviceMonitor/interval': '30 s' does not match",
    ),
    "too little time to stop": (
        {"terminationGracePeriodSeconds": 1},
        "at '/terminationGracePeriodSeconds': minimum: got 1, want 5",
    ),
    "both monitors": (
        {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
        "every sample would be there twice",
    ),
    "a monitor and a scrape config": (
        {"podMonitor": {"enabled": True}, "scrapeConfig": {"enabled": True}},
        "podMonitor and scrapeConfig are enabled: every sample would be there twice; enable one",
    ),
    "an Ingress for every host": (
        {"ingress": {"enabled": True}},
        "ingress.hosts is empty: name the hosts",
    ),
    "a route without a Gateway": (
        {"httpRoute": {"enabled": True}},
        "httpRoute.parentRefs is empty: name the Gateway",
    ),
    "a host with a path": (
        {"ingress": {"enabled": True, "hosts": ["example.com/page"]}},
        "at '/ingress/hosts/0': 'example.com/page' does not match",
    ),
    "a further object that is none": (
        {"extraObjects": [{"kind": "ConfigMap"}]},
        "at '/extraObjects/0': missing properties 'apiVersion', 'metadata'",
    ),
    "a further container without an image": (
        {"extraContainers": [{"name": "proxy"}]},
        "at '/extraContainers/0': missing property 'image'",
    ),
    "a proxy that is no URL": (
        {"serviceMonitor": {"proxyUrl": "proxy:3128"}},
        "at '/serviceMonitor/proxyUrl': 'proxy:3128' does not match",
    ),
    "a namespace with a dot": (
        {"namespaceOverride": "a.b"},
        "at '/namespaceOverride': 'a.b' does not match",
    ),
    "a condition without a parent chart": (
        {"enabled": False},
        "at '/enabled': value must be true",
    ),
    "misspelt parameter": (
        {"prometheusRule": {"parameters": {"stuckAfter": 1}}},
        "additional properties 'stuckAfter' not allowed",
    ),
    "share above 1": (
        {"prometheusRule": {"parameters": {"errorBudget": 5}}},
        "at '/prometheusRule/parameters/errorBudget': maximum: got 5, want 1",
    ),
    "misspelt alert": (
        {"prometheusRule": {"disabled": ["CloudflareWorkflowStuck"]}},
        'no alert "CloudflareWorkflowStuck"; there are CloudflareWorkflowInstanceErrored, ',
    ),
    "no accounts": (
        {"config": {"accounts": []}},
        "at '/config/accounts': minItems: got 0, want 1",
    ),
    "an account without workflows": (
        account(workflows=[]),
        "at '/config/accounts/0/workflows': minItems",
    ),
    "a section of the configuration that there is not": (
        {"config": {"pol": {}}},
        "at '/config': additional properties 'pol' not allowed",
    ),
    "a misspelt key of the configuration": (
        {"config": {"poll": {"intervl": "15s"}}},
        "at '/config/poll': additional properties 'intervl' not allowed",
    ),
    "a misspelt key of an account": (
        account(api_tokenfile="/run/secrets/cloudflare/token"),
        "at '/config/accounts/0': additional properties 'api_tokenfile' not allowed",
    ),
    "a duration without a unit": (
        {"config": {"poll": {"interval": 15}}},
        "at '/config/poll/interval': got number, want null or string",
    ),
    "a size without a unit": (
        {"config": {"api": {"max_body": "256"}}},
        "at '/config/api/max_body': '256' does not match pattern '^[0-9.]+ ?[KMGT]i?B$'",
    ),
    "a status that there is not": (
        account(workflows=[{"name": "orders", "discover": {"statuses": ["failed"]}}]),
        "at '/config/accounts/0/workflows/0/discover/statuses/0': value must be one of 'queued', ",
    ),
    "shards in the configuration": (
        {"config": {"shard": {"index": 0}}},
        "at '/config': additional properties 'shard' not allowed",
    ),
    "no pods": ({"replicaCount": 0}, "at '/replicaCount': minimum: got 0, want 1"),
    "replicas without a database": (
        {"replicaCount": 3},
        "replicaCount is 3, but each pod would have a state of its own and count everything: "
        "replicas share a PostgreSQL database; name the Secret with its URL in "
        "state.existingSecret",
    ),
    "the database's password in the configuration": (
        {"config": {"state": {"url": "postgresql://exporter:hunter2@db/exporter"}}},
        "config.state.url has a password, which would be readable in a ConfigMap",
    ),
    "the database's password in a parameter": (
        {"config": {"state": {"url": "postgresql://db/exporter?user=e&password=hunter2"}}},
        "config.state.url has a password, which would be readable in a ConfigMap",
    ),
    "a password without a Secret": (
        {
            "config": {
                "state": {
                    "url": "postgresql://e@db/exporter",
                    "password_file": "/run/secrets/state/password",
                }
            }
        },
        "config.state.password_file is /run/secrets/state/password, but nothing is mounted there: "
        "name your Secret in state.existingSecret",
    ),
    "a key that no Secret can have": (
        {"state": {"existingSecret": "database", "urlKey": "a/b"}},
        "at '/state/urlKey': 'a/b' does not match",
    ),
    "token in the configuration": (
        account(api_token="hunter2"),
        "config.accounts[0].api_token would be readable in a ConfigMap: put it into a Secret, name "
        "that in credentials.existingSecret, and write api_token_file: /run/secrets/cloudflare/KEY",
    ),
    "key in the configuration": (
        account(api_key="hunter2"),
        "write api_key_file: /run/secrets/cloudflare/KEY",
    ),
    "token of a queue in the configuration": (
        account(events={"queue_id": "queue", "api_token": "hunter2"}),
        "config.accounts[0].events.api_token would be readable in a ConfigMap",
    ),
    "file of a queue's token that is not there": (
        {
            "credentials": {"existingSecret": "", "files": {"token": "hunter2"}},
            **account(
                events={"queue_id": "queue", "api_token_file": "/run/secrets/cloudflare/queues"}
            ),
        },
        "config.accounts[0].events.api_token_file is /run/secrets/cloudflare/queues, but "
        'credentials.files has no "queues"',
    ),
    "no Secret": (
        {"credentials": {"existingSecret": ""}},
        "config.accounts[0].api_token_file is /run/secrets/cloudflare/token, but nothing is "
        "mounted there: name your Secret in credentials.existingSecret",
    ),
    "another file": (
        {"credentials": {"existingSecret": "", "files": {"tokne": "hunter2"}}},
        'but credentials.files has no "token"',
    ),
    "two Secrets": (
        {"credentials": {"files": {"token": "hunter2"}}},
        "credentials: give existingSecret or files, not both",
    ),
    "probes by HTTPS without TLS": (
        {"webConfig": {"probes": "https"}},
        "webConfig.probes is https, but there is no TLS",
    ),
    "name that no Service can have": (
        {"fullnameOverride": "1st"},
        "at '/fullnameOverride': '1st' does not match",
    ),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_a_message(values: dict[str, Any], message: str) -> None:
    with pytest.raises(helm.HelmError) as refusal:
        render(SMALLEST, values)
    assert message in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_no_values_at_all_are_refused_with_what_is_needed() -> None:
    with pytest.raises(helm.HelmError, match=r"config\.accounts is empty: say which accounts and"):
        render()


def test_a_configuration_without_accounts_is_refused() -> None:
    values = {
        "config": {"poll": {"interval": "30s"}},
        "extraEnvFrom": [{"secretRef": {"name": "c"}}],
    }
    with pytest.raises(helm.HelmError, match=r"config\.accounts is empty: .* or leave config out"):
        render(values)


@pytest.mark.parametrize("name", yaml.safe_load((CHART / "values.yaml").read_text()))
def test_a_key_without_a_value_is_none_or_refused(name: str) -> None:
    """Such as a section whose keys are all comments."""
    try:
        render(SMALLEST, {name: None})
    except helm.HelmError as refusal:
        assert f"at '': missing property '{name}'" in str(refusal)  # noqa: PT017


def test_a_release_whose_name_no_service_can_have_is_refused() -> None:
    with pytest.raises(helm.HelmError, match="set fullnameOverride to a name that starts with"):
        render(SMALLEST, name="2nd")


class TestSchema:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def test_it_knows_each_documented_value_and_no_other(self) -> None:
        known, paths = {v.path for v in documented_values()}, set()

        def walk(node: dict[str, Any], path: tuple[str, ...]) -> None:
            if ".".join(path) in known or "properties" not in node:
                paths.add(".".join(path))
            else:
                for key, child in node["properties"].items():
                    definition = child.get("$ref", "").rpartition("/")[2]
                    walk(self.schema["definitions"].get(definition, child), (*path, key))

        walk(self.schema, ())
        assert paths - {"enabled", "global"} == known

    def test_it_knows_each_key_of_the_configuration(self) -> None:
        """`web` and `config` are the chart's own: containerPort, webConfig and autoReloadInterval
        say what they hold."""
        config = self.schema["properties"]["config"]
        for loc, field in leaves():
            if loc[0] not in ("web", "config"):
                node = config
                for key in loc:
                    node = node["properties"][key]
                assert node["description"] == " ".join((field.description or "").split())
        assert not {"web", "config"} & set(config["properties"])

    def test_it_knows_the_parameters_of_the_alerts(self) -> None:
        rule = self.schema["properties"]["prometheusRule"]["properties"]
        assert set(rule["parameters"]["properties"]) == set(alert_rules.parameters())
