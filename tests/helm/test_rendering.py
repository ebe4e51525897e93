"""What the chart renders is what Kubernetes and the Prometheus operator take."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import helm_python as helm
import msgspec
import pytest
import yaml

from exporter import __version__
from exporter.config import yaml_file
from simulator import Script, Simulator, serve_in_thread
from tests.cli.command import Command
from tests.e2e.daemon import configuration
from tests.helm.chart import (
    CUSTOM,
    KUBERNETES,
    SMALLEST,
    Release,
    group,
    kubernetes_errors,
    over,
    render,
)
from tests.helm.matrix import MATRIX
from tests.helm.pod_security import violations
from tests.node import Typed, Validator, type_errors, validator
from tools import CHART, ROOT, alert_rules
from tools.chart_config_schema import CHARTS_OWN

GOOD = sorted((ROOT / "tests" / "config" / "good").glob("*.yaml"))

CI = {path.name: msgspec.yaml.decode(path.read_text()) for path in (CHART / "ci").glob("*.yaml")}
CASES = MATRIX | CI

each_case = pytest.mark.parametrize("values", CASES.values(), ids=CASES)


def released(values: dict[str, Any]) -> Release:
    """A case's release, named like nothing in the chart."""
    return render(SMALLEST, values, name="mine")


@pytest.fixture(scope="module")
def schemas() -> Iterator[Validator]:
    with validator() as running:
        yield running


@each_case
class TestEachCase:
    @pytest.mark.slow(0.1)
    @pytest.mark.parametrize("version", KUBERNETES)
    def test_kubernetes_takes_it(self, values: dict[str, Any], version: str) -> None:
        problems = [kubernetes_errors(o, version) for o in released(values).native]
        assert list(filter(None, problems)) == []

    @pytest.mark.process
    def test_the_operator_and_the_gateway_take_it(
        self, values: dict[str, Any], schemas: Validator
    ) -> None:
        assert [m for o in released(values).custom for m in schemas.problems(o)] == []

    def test_the_pods_pass_the_restricted_standard(self, values: dict[str, Any]) -> None:
        release = released(values)
        assert violations(release.pod["spec"]) == []
        assert violations(release.the("Pod")["spec"]) == []

    def test_selectors_find_the_pod(self, values: dict[str, Any]) -> None:
        release = released(values)
        labels = release.pod["metadata"]["labels"].items()
        selectors = [s["spec"]["selector"] for s in release.of_kind("Service")]
        others = [release.workload, *release.of_kind("PodDisruptionBudget")]
        selectors += [o["spec"]["selector"]["matchLabels"] for o in others]
        assert [s for s in selectors if not s.items() <= labels] == []

    def test_every_object_says_what_it_belongs_to(self, values: dict[str, Any]) -> None:
        own = values | {"extraObjects": []} if "extraObjects" in values else values
        for o in released(own).objects:
            labels = o["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == "mine"
            assert labels["app.kubernetes.io/managed-by"] == "Helm"

    def test_helm_lint_finds_no_error(self, values: dict[str, Any]) -> None:
        report = helm.lint(CHART, over(SMALLEST, values), strict=True)
        assert (report["errors"], report["messages"]) == ([], [])


@pytest.mark.parametrize("values", CI.values(), ids=CI)
def test_values_of_the_ci_need_no_others(values: dict[str, Any]) -> None:
    assert render(values).workload
    assert helm.lint(CHART, values, strict=True)["messages"] == []


@pytest.mark.process
def test_no_custom_resource_has_a_field_that_it_does_not_know() -> None:
    objects = [
        Typed(f'import("{CUSTOM[group(o)]}/{o["apiVersion"]}").I{o["kind"]}', o)
        for values in CASES.values()
        for o in released(values).custom
    ]
    assert len({o.type for o in objects}) == 5
    assert type_errors(objects) == ""


class TestPod:
    def test_the_exporter_takes_its_arguments_and_configuration(self, tmp_path: Path) -> None:
        release = render(SMALLEST)
        (container,) = release.pod["spec"]["containers"]
        token, file = tmp_path / "token", tmp_path / "config.yaml"
        token.write_text("secret")
        config = release.the("ConfigMap")["data"]["config.yaml"]
        file.write_text(config.replace("/run/secrets/cloudflare/token", str(token)))
        path = "--config.file=/etc/cloudflare-workflows-exporter/config.yaml"
        assert path in container["args"]
        flags = [f"--config.file={file}" if arg == path else arg for arg in container["args"]]
        done = Command(tmp_path)("--check-config", *flags)
        assert done.returncode == 0, done.stderr

    def test_without_a_configuration_it_watches_the_account_of_its_environment(
        self, tmp_path: Path
    ) -> None:
        release = render(CI["account-values.yaml"])
        (container,) = release.pod["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "cloudflare"}}]
        assert release.of_kind("ConfigMap") == []
        assert [m["name"] for m in container["volumeMounts"]] == ["state"]
        assert "watches every workflow of the account in its environment" in release.notes
        environ = {"CLOUDFLARE_API_TOKEN": "a-token", "CLOUDFLARE_ACCOUNT_ID": "acc"}
        done = Command(tmp_path)("--check-config", *container["args"], **environ)
        assert done.returncode == 0, done.stderr
        assert "acc: 1 workflow(s) to discover" in done.stdout
        (check,) = release.the("Pod")["spec"]["containers"]
        assert check["args"] == ["--check-api"]

    def test_the_configuration_is_passed_on_as_it_is(self) -> None:
        rendered = render(SMALLEST).the("ConfigMap")["data"]["config.yaml"]
        assert msgspec.yaml.decode(rendered) == SMALLEST["config"]

    @pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
    def test_what_the_exporter_takes_is_taken(self, path: Path, tmp_path: Path) -> None:
        config = yaml_file.read(path)
        for name in CHARTS_OWN:
            config.pop(name, None)
        for account in config["accounts"]:
            account.pop("api_token", None)
            account.pop("api_key", None)
        state = config.get("state") or {}
        if url := state.get("url"):
            state["url"] = url.replace(":hidden@", "@")
        release = render(SMALLEST, {"config": config})
        file = tmp_path / "config.yaml"
        file.write_text(release.the("ConfigMap")["data"]["config.yaml"])
        assert yaml_file.read(file) == config

    def test_a_changed_configuration_rolls_the_pod(self) -> None:
        annotations = [
            render(SMALLEST, more).pod["metadata"]["annotations"]["checksum/config"]
            for more in ({}, {}, {"config": {"poll": {"interval": "30s"}}})
        ]
        assert annotations[0] == annotations[1] != annotations[2]

    def test_a_configuration_that_is_loaded_live_rolls_the_pod_only_for_the_state(self) -> None:
        live = MATRIX["live reload"]
        before, other, moved = (
            render(SMALLEST, live | {"config": SMALLEST["config"] | more}).pod
            for more in ({}, {"poll": {"interval": "30s"}}, {"state": {"path": "/tmp/state.db"}})
        )
        assert "--config.auto-reload-interval=30s" in before["spec"]["containers"][0]["args"]
        assert before == other
        assert before["metadata"]["annotations"] != moved["metadata"]["annotations"]

    def test_changed_credentials_roll_the_pod(self) -> None:
        values = {"credentials": {"existingSecret": "", "files": {"token": "new"}}}
        before = render(SMALLEST, MATRIX["credentials in the values"]).pod
        after = render(SMALLEST, values).pod
        assert before["metadata"]["annotations"] != after["metadata"]["annotations"]

    def test_the_state_is_recorded_in_a_volume_unless_that_is_turned_off(self) -> None:
        without, with_ = render(SMALLEST, MATRIX["no persistence"]), render(SMALLEST)
        assert {"name": "state", "emptyDir": {}} in without.pod["spec"]["volumes"]
        (claim,) = with_.the("StatefulSet")["spec"]["volumeClaimTemplates"]
        assert claim["metadata"]["name"] == "state"
        for release in (without, with_):
            (container,) = release.pod["spec"]["containers"]
            mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            assert mounts["state"] == "/var/lib/cloudflare-workflows-exporter"

    def test_a_state_path_of_ones_own_is_left_alone(self) -> None:
        (container,) = render(SMALLEST, MATRIX["no state"]).pod["spec"]["containers"]
        assert not any("state.path" in arg for arg in container["args"])

    def test_no_token_of_kubernetes_is_mounted(self) -> None:
        release = render(SMALLEST)
        assert release.pod["spec"]["automountServiceAccountToken"] is False
        assert release.the("ServiceAccount")["automountServiceAccountToken"] is False

    def test_it_has_more_time_to_stop_than_the_exporter_takes(self) -> None:
        assert render(SMALLEST).pod["spec"]["terminationGracePeriodSeconds"] > 5

    def test_its_user_is_that_of_the_image(self) -> None:
        user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert user
        context = render(SMALLEST).pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user[1]), int(user[2]))

    def test_its_image_is_that_of_the_exporters_version(self) -> None:
        (container,) = render(SMALLEST).pod["spec"]["containers"]
        repository, _, tag = container["image"].rpartition(":")
        assert (repository.rpartition("/")[2], tag) == (CHART.name, __version__)


class TestWebConfig:
    @staticmethod
    def container(values: dict[str, Any]) -> dict[str, Any]:
        (container,) = render(SMALLEST, values).pod["spec"]["containers"]
        found: dict[str, Any] = container
        return found

    def test_the_file_is_where_the_exporter_reads_it(self) -> None:
        container = self.container(MATRIX["TLS and passwords"])
        assert "--web.config.file=/run/secrets/web/web.yaml" in container["args"]
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert mounts["web"] == "/run/secrets/web"
        assert not any("web.config" in arg for arg in self.container({})["args"])

    def test_probes_ask_by_https_as_a_user_of_their_own(self) -> None:
        container = self.container(MATRIX["TLS and passwords"])
        for probe, path in (("livenessProbe", "/-/healthy"), ("readinessProbe", "/-/ready")):
            assert container[probe]["httpGet"] == {
                "path": path,
                "port": "metrics",
                "scheme": "HTTPS",
                "httpHeaders": [{"name": "Authorization", "value": "Basic cHJvYmU6cHJvYmU="}],
            }

    def test_where_certificates_are_demanded_they_see_whether_the_port_is_open(self) -> None:
        """Kubernetes has no certificate to show."""
        container = self.container(MATRIX["client certificates"])
        for probe in ("livenessProbe", "readinessProbe"):
            assert container[probe]["tcpSocket"] == {"port": "metrics"}
            assert "httpGet" not in container[probe]

    def test_monitors_have_what_authentication_needs(self) -> None:
        (service,) = render(SMALLEST, MATRIX["TLS and passwords"]).the("ServiceMonitor")["spec"][
            "endpoints"
        ]
        values = MATRIX["TLS and passwords"]["serviceMonitor"]
        for key in ("scheme", "tlsConfig", "basicAuth"):
            assert service[key] == values[key]


class TestReplicas:
    """With a database, which they share."""

    @staticmethod
    def container(name: str) -> dict[str, Any]:
        (container,) = render(SMALLEST, MATRIX[name]).pod["spec"]["containers"]
        found: dict[str, Any] = container
        return found

    def test_there_is_one_pod_with_a_volume_when_nothing_is_said(self) -> None:
        spec = render(SMALLEST).the("StatefulSet")["spec"]
        assert (spec["replicas"], len(spec["volumeClaimTemplates"])) == (1, 1)

    def test_they_are_pods_without_a_volume_each_replaced_once_the_next_is_ready(self) -> None:
        release = render(SMALLEST, MATRIX["replicas"])
        spec = release.the("Deployment")["spec"]
        assert spec["replicas"] == 3
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert "state" not in {volume["name"] for volume in release.pod["spec"]["volumes"]}
        assert not any("state.path" in arg for arg in self.container("replicas")["args"])

    def test_the_url_comes_from_the_secret_and_is_in_no_configuration(self) -> None:
        url = {"name": "database", "key": "uri"}
        assert self.container("replicas")["env"] == [
            {"name": "CWE_STATE__URL", "valueFrom": {"secretKeyRef": url}}
        ]
        config = render(SMALLEST, MATRIX["replicas"]).the("ConfigMap")["data"]["config.yaml"]
        assert "state" not in msgspec.yaml.decode(config)

    def test_with_the_url_in_the_configuration_the_password_is_a_file(self) -> None:
        container = self.container("replicas in full")
        assert container["env"] == [
            {"name": "CWE_STATE__PASSWORD_FILE", "value": "/run/secrets/state/pw"}
        ]
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert mounts["database"] == "/run/secrets/state"
        assert "env" not in self.container("replicas without a password")

    @pytest.mark.parametrize("name", ["replicas", "replicas in full"])
    def test_the_exporter_takes_its_environment_and_configuration(
        self, name: str, tmp_path: Path
    ) -> None:
        container = self.container(name)
        token, password, file = tmp_path / "token", tmp_path / "pw", tmp_path / "config.yaml"
        token.write_text("secret")
        password.write_text("hunter2")
        config = render(SMALLEST, MATRIX[name]).the("ConfigMap")["data"]["config.yaml"]
        file.write_text(config.replace("/run/secrets/cloudflare/token", str(token)))
        flags = [arg for arg in container["args"] if not arg.startswith("--config.file")]
        environ = {
            v["name"]: v.get("value", "postgresql://exporter:hunter2@db/exporter").replace(
                "/run/secrets/state/pw", str(password)
            )
            for v in container["env"]
        }
        flags += [f"--config.file={file}", "--check-config"]
        done = Command(tmp_path)(*flags, **environ)
        assert done.returncode == 0, done.stderr

    def test_they_are_spread_over_nodes_unless_something_else_is_said(self) -> None:
        release = render(SMALLEST, MATRIX["replicas"])
        (spread,) = release.pod["spec"]["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
        labels = release.pod["metadata"]["labels"].items()
        assert spread["labelSelector"]["matchLabels"].items() <= labels
        own = MATRIX["scheduling"]["topologySpreadConstraints"]
        chosen = render(SMALLEST, MATRIX["replicas"], MATRIX["scheduling"])
        assert chosen.pod["spec"]["topologySpreadConstraints"] == own
        assert "topologySpreadConstraints" not in render(SMALLEST).pod["spec"]

    def test_a_disruption_takes_one_down_at_a_time(self) -> None:
        budget = render(SMALLEST, MATRIX["replicas"]).the("PodDisruptionBudget")
        assert budget["spec"]["maxUnavailable"] == 1
        for fewer in ("smallest", "a replica", "replicas without a password"):
            assert render(SMALLEST, MATRIX[fewer]).of_kind("PodDisruptionBudget") == []

    def test_a_policy_lets_them_reach_their_database(self) -> None:
        policy = render(SMALLEST, MATRIX["replicas in full"]).the("NetworkPolicy")
        (rule,) = (e for e in policy["spec"]["egress"] if e["ports"][0]["port"] == 6432)
        assert rule["to"] == MATRIX["replicas in full"]["networkPolicy"]["database"]["to"]
        alone = render(SMALLEST, {"networkPolicy": {"enabled": True}}).the("NetworkPolicy")
        ports = {port["port"] for e in alone["spec"]["egress"] for port in e["ports"]}
        assert ports == {53, 443}

    def test_an_alert_knows_how_many_there_should_be_of_this_release_alone(self) -> None:
        """Its job is named as a ServiceMonitor does, or a PodMonitor."""
        release = render(SMALLEST, MATRIX["replicas in full"])
        replicas, *groups = release.the("PrometheusRule")["spec"]["groups"]
        assert groups == alert_rules.groups()
        name = release.the("ServiceMonitor")["metadata"]["name"]
        assert [(rule["expr"], rule["labels"]) for rule in replicas["rules"]] == [
            ("vector(2)", {"namespace": "monitoring", "release": "exporter", "job": job})
            for job in (name, f"monitoring/{name}")
        ]

    def test_another_lease_replaces_the_pods_though_the_configuration_is_loaded_live(self) -> None:
        before, after = (
            render(SMALLEST, MATRIX["live reload"], MATRIX["replicas"], {"config": more}).pod
            for more in ({}, {"replica": {"lease": "1m"}})
        )
        assert before["metadata"]["annotations"] != after["metadata"]["annotations"]

    def test_each_is_scraped(self) -> None:
        """By the monitors through the Service's addresses; the notes say how without them."""
        notes = " ".join(render(SMALLEST, MATRIX["replicas"]).notes.split())
        assert "scrape each pod, by dns_sd_configs with the A records of" in notes


class TestCheckApi:
    """The pod that `helm test` runs."""

    VALUES = over(
        MATRIX["credentials from the environment"],
        {"extraArgs": ["--api.timeout=5s"], "networkPolicy": {"enabled": True}},
    )

    def test_it_asks_the_api_as_the_exporter_would(self) -> None:
        release = render(SMALLEST, self.VALUES)
        pod, (own,) = release.the("Pod"), release.the("Pod")["spec"]["containers"]
        (exporter,) = release.pod["spec"]["containers"]
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert "--check-api" in own["args"]
        assert set(own["args"]) - set(exporter["args"]) == {"--check-api"}
        for key in ("image", "env", "envFrom", "securityContext", "resources"):
            assert own[key] == exporter[key]
        mounts = [m for m in exporter["volumeMounts"] if m["name"] != "state"]
        assert own["volumeMounts"] == mounts
        assert pod["spec"]["volumes"] == release.pod["spec"]["volumes"]

    def test_the_exporter_takes_its_arguments(self, tmp_path: Path) -> None:
        (own,) = render(SMALLEST).the("Pod")["spec"]["containers"]
        path = "--config.file=/etc/cloudflare-workflows-exporter/config.yaml"
        simulator = Simulator()
        simulator.access.token("a-token")
        simulator.world.account("acc").workflow("orders").create("order-1", Script(()))
        with serve_in_thread(simulator):
            url = f"{simulator.url}/accounts/{{account_id}}"
            file = configuration(tmp_path, url, api_token="a-token")
            flags = [f"--config.file={file}" if arg == path else arg for arg in own["args"]]
            done = Command(tmp_path)(*flags)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "workflow orders exists" in done.stdout

    def test_it_has_what_writes_the_credentials_before_it_starts(self) -> None:
        pod = render(SMALLEST, MATRIX["further containers and objects"]).the("Pod")
        assert [c["name"] for c in pod["spec"]["initContainers"]] == ["wait"]

    def test_no_service_leads_to_it_and_it_may_reach_the_api(self) -> None:
        release = render(SMALLEST, self.VALUES)
        labels = release.the("Pod")["metadata"]["labels"]
        for service in release.of_kind("Service"):
            assert not service["spec"]["selector"].items() <= labels.items()
        selector = release.the("NetworkPolicy")["spec"]["podSelector"]
        assert selector["matchLabels"].items() <= labels.items()
        (expression,) = selector["matchExpressions"]
        for pod in (release.the("Pod"), release.pod):
            assert pod["metadata"]["labels"][expression["key"]] in expression["values"]


class TestPage:
    """What leads people to it from outside of the cluster."""

    @staticmethod
    def service(release: Release) -> dict[str, Any]:
        (found,) = (s for s in release.of_kind("Service") if "clusterIP" not in s["spec"])
        return found

    def test_an_ingress_leads_to_it(self) -> None:
        release = render(SMALLEST, MATRIX["ingress in full"])
        service, spec = self.service(release), release.the("Ingress")["spec"]
        assert [rule["host"] for rule in spec["rules"]] == ["a.example.com", "b.example.com"]
        for rule in spec["rules"]:
            backend = rule["http"]["paths"][0]["backend"]["service"]
            assert backend["name"] == service["metadata"]["name"]
            assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]

    def test_a_route_of_the_gateway_leads_to_it(self) -> None:
        release = render(SMALLEST, MATRIX["route in full"])
        service, (rule,) = self.service(release), release.the("HTTPRoute")["spec"]["rules"]
        (backend,) = rule["backendRefs"]
        assert backend["name"] == service["metadata"]["name"]
        assert backend["port"] == service["spec"]["ports"][0]["port"]


class TestMonitoring:
    SETTINGS: ClassVar = {
        "interval": "30s",
        "scrapeTimeout": "10s",
        "scheme": "https",
        "params": {"name[]": ["up"]},
        "proxyUrl": "http://proxy:3128",
        "honorLabels": True,
        "sampleLimit": 500000,
        "metricRelabelings": [{"action": "drop", "regex": "go_.*"}],
    }
    LABELS: ClassVar = {"jobLabel": "app.kubernetes.io/name", "podTargetLabels": ["team"]}

    @pytest.mark.parametrize(
        ("kind", "endpoints", "labels"),
        [
            ("ServiceMonitor", "endpoints", {**LABELS, "targetLabels": ["tier"]}),
            ("PodMonitor", "podMetricsEndpoints", LABELS),
        ],
    )
    def test_each_setting_of_a_monitor_is_in_its_place(
        self, kind: str, endpoints: str, labels: dict[str, Any]
    ) -> None:
        values = {kind[0].lower() + kind[1:]: {"enabled": True, **self.SETTINGS, **labels}}
        spec = render(SMALLEST, values).the(kind)["spec"]
        (endpoint,) = spec[endpoints]
        of_the_target = {**labels, "sampleLimit": 500000}
        assert {key: spec[key] for key in of_the_target} == of_the_target
        of_the_endpoint = {k: v for k, v in self.SETTINGS.items() if k != "sampleLimit"}
        assert {key: endpoint[key] for key in of_the_endpoint} == of_the_endpoint

    def test_a_scrape_config_finds_each_pod_by_its_address(self) -> None:
        values = {"scrapeConfig": {"enabled": True, "jobName": "workflows", **self.SETTINGS}}
        release = render(SMALLEST, values, {"namespaceOverride": "there"})
        spec = release.the("ScrapeConfig")["spec"]
        renamed = {**self.SETTINGS, "scrapeInterval": "30s", "scheme": "HTTPS"}
        del renamed["interval"]
        assert {key: spec[key] for key in renamed} == renamed
        assert spec["jobName"] == "workflows"
        (found,) = spec["dnsSDConfigs"]
        (headless,) = (s for s in release.of_kind("Service") if "clusterIP" in s["spec"])
        assert found["names"] == [f"{headless['metadata']['name']}.there.svc"]
        assert found["port"] == headless["spec"]["ports"][0]["port"]

    def test_a_service_monitor_scrapes_each_pod_once(self) -> None:
        """Both Services have the labels that it selects by; one has the port that it names."""
        release = render(SMALLEST, MATRIX["service monitor"])
        spec = release.the("ServiceMonitor")["spec"]
        (endpoint,) = spec["endpoints"]
        services = [
            s
            for s in release.of_kind("Service")
            if spec["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()
            for port in s["spec"]["ports"]
            if port["name"] == endpoint["port"]
        ]
        assert len(services) == 1

    def test_the_alerts_are_those_of_the_source(self) -> None:
        rule = render(SMALLEST, MATRIX["alerts"]).the("PrometheusRule")
        replicas, *groups = rule["spec"]["groups"]
        assert replicas["name"] == "cloudflare-workflows-replicas"
        assert groups == alert_rules.groups()

    @pytest.mark.parametrize(("case", "count"), [("smallest", 1), ("replicas", 3)])
    def test_the_alerts_expect_as_many_replicas_as_the_release_has(
        self, case: str, count: int
    ) -> None:
        rule = render(SMALLEST, MATRIX["alerts"], MATRIX[case]).the("PrometheusRule")
        assert {wanted["expr"] for wanted in rule["spec"]["groups"][0]["rules"]} == {
            f"vector({count})"
        }

    @pytest.mark.parametrize("case", ["pod monitor", "scrape config in full"])
    def test_the_alerts_expect_them_in_the_job_of_the_monitor(self, case: str) -> None:
        release = render(SMALLEST, MATRIX["alerts"], MATRIX[case])
        groups = release.the("PrometheusRule")["spec"]["groups"]
        (monitor,) = release.of_kind("PodMonitor") + release.of_kind("ScrapeConfig")
        meta = monitor["metadata"]
        job = monitor["spec"].get("jobName") or f"{meta['namespace']}/{meta['name']}"
        assert job in {wanted["labels"]["job"] for wanted in groups[0]["rules"]}

    def test_parameters_stand_in_the_alerts(self) -> None:
        groups = render(SMALLEST, MATRIX["alerts in full"]).the("PrometheusRule")["spec"]["groups"]
        text = yaml.safe_dump(groups, width=1000)
        assert "cloudflare_workflow:watched:info * 7200" in text
        assert "> 14.4 * 0.001" in text
        assert "max by (cluster, account, workflow)" in text
        assert "runbook_url: https://wiki.example.com/runbooks/CloudflareWorkflowDataStale" in text
        assert "${" not in text

    def test_single_alerts_can_be_left_out_and_all_labelled(self) -> None:
        groups = render(SMALLEST, MATRIX["alerts in full"]).the("PrometheusRule")["spec"]["groups"]
        rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
        assert "CloudflareWorkflowStepRetrying" not in {rule["alert"] for rule in rules}
        assert {rule["labels"]["team"] for rule in rules} == {"sre"}
        assert "never beats the alert's own" not in {rule["labels"]["severity"] for rule in rules}

    def test_workflows_can_have_thresholds_of_their_own(self) -> None:
        groups = render(SMALLEST, MATRIX["alerts in full"]).the("PrometheusRule")["spec"]["groups"]
        assert groups[0]["rules"] == [
            {
                "record": "cloudflare_workflow:stuck_after:seconds",
                "expr": "vector(14400)",
                "labels": {"namespace": "monitoring", "release": "exporter", "workflow": "reports"},
            },
            {
                "record": "cloudflare_workflow:waiting_after:seconds",
                "expr": "vector(2678400)",
                "labels": {"namespace": "monitoring", "release": "exporter", "workflow": "trials"},
            },
        ]

    def test_two_releases_in_a_namespace_record_no_threshold_under_the_same_labels(self) -> None:
        """Prometheus would have one of the two, by turns."""
        one, other = (
            render(SMALLEST, MATRIX["alerts in full"], name=name).the("PrometheusRule")
            for name in ("one", "other")
        )
        recorded = [
            [(rule["record"], rule["labels"]) for rule in release["spec"]["groups"][0]["rules"]]
            for release in (one, other)
        ]
        assert [r for r in recorded[0] if r in recorded[1]] == []

    def test_the_dashboards_are_those_of_the_source(self) -> None:
        (_, found) = render(SMALLEST, MATRIX["dashboards"]).of_kind("ConfigMap")
        source = {p.name: p.read_text() for p in (ROOT / "grafana" / "dashboards").glob("*.json")}
        assert {k: v.rstrip() for k, v in found["data"].items()} == {
            k: v.rstrip() for k, v in source.items()
        }
        assert found["metadata"]["labels"]["dashboard"] == "1"
        assert "grafana_dashboard" not in found["metadata"]["labels"]


class TestNotes:
    STEPS: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "serviceMonitor.enabled=true"),
        ({"podMonitor": {"enabled": True}}, "prometheusRule.enabled=true"),
        (
            {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
            "dashboards.enabled=true",
        ),
        (MATRIX["everything"], "docs/alerting.md"),
    )

    @pytest.mark.parametrize(("values", "step"), STEPS)
    def test_they_tell_the_next_step(self, values: dict[str, Any], step: str) -> None:
        notes = render(SMALLEST, values).notes
        assert re.findall(r"Next: (?:.*\n?)*", notes)[0].count(step) == 1

    def test_they_tell_what_becomes_of_the_state(self) -> None:
        assert "persistence.enabled=false" in render(SMALLEST, MATRIX["no persistence"]).notes
        assert "persistence.enabled=false" not in render(SMALLEST).notes

    @each_case
    def test_their_commands_name_what_there_is(self, values: dict[str, Any]) -> None:
        """Each works as it is printed."""
        release = released(values)
        commands = [line.split() for line in release.notes.splitlines() if line.startswith("  ")]
        kubectl = [command for command in commands if command[0] == "kubectl"]
        named = [
            (option[1], *word.split("/"))
            for _, *option in kubectl
            for word in option
            if "/" in word
        ]
        there = {
            (o["metadata"]["namespace"], o["kind"].lower(), o["metadata"]["name"])
            for o in release.native
        }
        assert len(named) == 4
        assert set(named) <= there
        (port,) = (command[-1] for command in kubectl if "port-forward" in command)
        service = next(o for o in release.of_kind("Service") if "clusterIP" not in o["spec"])
        assert port == f"9734:{service['spec']['ports'][0]['port']}"
        (test,) = (command for command in commands if command[0] == "helm")
        assert test == ["helm", "test", "mine", "--namespace", "monitoring"]


def test_the_chart_has_the_version_of_the_exporter() -> None:
    chart = msgspec.yaml.decode((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


class TestEverythingElse:
    def test_all_objects_are_in_the_namespace_that_was_named(self) -> None:
        release = render(SMALLEST, MATRIX["everything"], {"namespaceOverride": "there"})
        assert {o["metadata"]["namespace"] for o in release.objects} == {"there"}

    @pytest.mark.parametrize("values", [{}, {"fullnameOverride": "a" * 48 + "--b"}])
    def test_no_name_ends_where_two_dashes_were_cut(self, values: dict[str, str]) -> None:
        """As in a release that is called after a branch of Git."""
        names = [
            o["metadata"]["name"] for o in render(SMALLEST, values, name="a" * 48 + "--b").objects
        ]
        assert [name for name in names if name.endswith("-")] == []

    def test_further_objects_are_templates(self) -> None:
        release = render(SMALLEST, MATRIX["further containers and objects"])
        names = [o["metadata"]["name"] for o in release.of_kind("ConfigMap")]
        full = "exporter-cloudflare-workflows-exporter"
        assert {f"{full}-as-yaml", f"{full}-as-text"} <= set(names)

    def test_further_containers_stand_before_and_beside_the_exporter(self) -> None:
        spec = render(SMALLEST, MATRIX["further containers and objects"]).pod["spec"]
        assert [c["name"] for c in spec["initContainers"]] == ["wait"]
        assert [c["name"] for c in spec["containers"]] == ["exporter", "proxy"]

    def test_labels_and_annotations_are_those_of_the_workload(self) -> None:
        release = render(SMALLEST, MATRIX["scheduling"])
        workload, pod = release.the("StatefulSet")["metadata"], release.pod["metadata"]
        assert workload["labels"]["tier"] == "monitoring"
        assert workload["annotations"] == {"reloader.stakater.com/auto": "true"}
        assert "tier" not in pod["labels"]


def test_the_package_holds_no_values_of_the_ci(tmp_path: Path) -> None:
    with tarfile.open(helm.package(CHART, destination=tmp_path)) as package:
        assert not [name for name in package.getnames() if "/ci/" in name]
