"""Values as people set them, one case for each thing that the chart can do."""

from typing import Any

_FILES = {"credentials": {"existingSecret": "", "files": {"token": "secret"}}}
_PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
_CONTAINER = {
    "image": "registry.example.com/tool:1.0",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
_RELABEL = [{"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "pod"}]

MATRIX: dict[str, dict[str, Any]] = {
    "smallest": {},
    "credentials in the values": _FILES,
    "credentials from the environment": {
        "credentials": {"existingSecret": ""},
        "config": {"accounts": [{"account_id": "a", "workflows": [{"name": "w", "discover": {}}]}]},
        "extraEnv": [
            {
                "name": "CLOUDFLARE_API_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "cloudflare", "key": "token"}},
            }
        ],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}, {"configMapRef": {"name": "proxy"}}],
    },
    "live reload": {"autoReloadInterval": "30s"},
    "a replica": {"state": {"existingSecret": "database"}},
    "replicas": {"replicaCount": 3, "state": {"existingSecret": "database", "urlKey": "uri"}},
    "replicas in full": {
        "replicaCount": 2,
        "state": {"existingSecret": "database", "passwordKey": "pw"},
        "config": {
            "state": {
                "url": "postgresql://exporter@db:6432/exporter?sslmode=verify-full"
                "&sslrootcert=/run/secrets/state/ca.crt"
            },
            "replica": {"lease": "1m"},
        },
        "persistence": {"enabled": False},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
        "networkPolicy": {"enabled": True, "database": {"port": 6432, "to": [_PEER]}},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
    },
    "replicas without a password": {
        "replicaCount": 2,
        "config": {"state": {"url": "postgresql://exporter@/exporter?host=/run/postgresql"}},
        "podDisruptionBudget": {"enabled": False},
    },
    "TLS and passwords": {
        "webConfig": {
            "existingSecret": "web",
            "probes": "https",
            "probeHeaders": [{"name": "Authorization", "value": "Basic cHJvYmU6cHJvYmU="}],
        },
        "serviceMonitor": {
            "enabled": True,
            "scheme": "https",
            "tlsConfig": {
                "ca": {"secret": {"name": "web", "key": "ca.crt"}},
                "serverName": "exporter.example.com",
            },
            "basicAuth": {
                "username": {"name": "scrape", "key": "username"},
                "password": {"name": "scrape", "key": "password"},
            },
        },
    },
    "client certificates": {
        "webConfig": {"existingSecret": "web", "probes": "tcp"},
        "podMonitor": {
            "enabled": True,
            "scheme": "https",
            "tlsConfig": {
                "cert": {"secret": {"name": "scrape", "key": "tls.crt"}},
                "keySecret": {"name": "scrape", "key": "tls.key"},
                "insecureSkipVerify": True,
            },
        },
    },
    "no persistence": {"persistence": {"enabled": False}},
    "persistence in full": {
        "persistence": {
            "size": "10Gi",
            "storageClass": "fast",
            "accessModes": ["ReadWriteOncePod"],
            "annotations": {"backup": "daily"},
            "whenDeleted": "Delete",
        }
    },
    "persistence without a class": {"persistence": {"storageClass": "-"}},
    "no state": {"config": {"state": {"path": None}}},
    "image by digest": {
        "image": {"repository": "registry.example.com:5000/x", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "image by a tag that looks like a number": {"image": {"tag": "1.0", "pullPolicy": "Always"}},
    "names": {"fullnameOverride": "null", "nameOverride": "true", "commonLabels": {"team": "sre"}},
    "service": {
        "service": {
            "type": "LoadBalancer",
            "port": 80,
            "annotations": {"example.com/internal": "true"},
            "labels": {"expose": "yes"},
        },
        "containerPort": 8080,
    },
    "no service account": {"serviceAccount": {"create": False}},
    "a service account of one's own": {
        "serviceAccount": {"create": False, "name": "mine"},
    },
    "scheduling": {
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "infra", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "preference": {
                            "matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]
                        },
                    }
                ]
            }
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
        "priorityClassName": "high",
        "terminationGracePeriodSeconds": 60,
        "podLabels": {"app.kubernetes.io/part-of": "monitoring"},
        "workloadLabels": {"tier": "monitoring"},
        "workloadAnnotations": {"reloader.stakater.com/auto": "true"},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["proxy.internal"]}],
        "podAnnotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"},
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.0.0.10"], "options": [{"name": "ndots", "value": "1"}]},
    },
    "extra": {
        "extraArgs": ["--log.format=json"],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs", "readOnly": True}],
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": None},
    },
    "further containers and objects": {
        "initContainers": [{**_CONTAINER, "name": "wait"}],
        "extraContainers": [{**_CONTAINER, "name": "proxy"}],
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": '{{ include "exporter.fullname" . }}-as-yaml',
                    "namespace": "{{ .Release.Namespace }}",
                },
            },
            """
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "exporter.fullname" . }}-as-text
  namespace: {{ include "exporter.namespace" . }}
""",
        ],
    },
    "another namespace": {"namespaceOverride": "there"},
    "ingress": {"ingress": {"enabled": True, "hosts": ["a.example.com"]}},
    "ingress in full": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["a.example.com", "b.example.com"],
            "tls": [{"secretName": "page", "hosts": ["a.example.com", "b.example.com"]}],
            "annotations": {"example.com/auth": "sso"},
            "labels": {"expose": "internal"},
        }
    },
    "route": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "internal"}]}},
    "route in full": {
        "service": {"port": 80},
        "httpRoute": {
            "enabled": True,
            "parentRefs": [
                {"name": "internal", "namespace": "gateways", "sectionName": "https", "port": 443}
            ],
            "hostnames": ["a.example.com", "*.b.example.com"],
            "filters": [
                {
                    "type": "ResponseHeaderModifier",
                    "responseHeaderModifier": {"set": [{"name": "X-Robots-Tag", "value": "none"}]},
                }
            ],
            "annotations": {"example.com/auth": "sso"},
            "labels": {"expose": "internal"},
        },
    },
    "disruption budget": {"podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"}},
    "network policy": {"networkPolicy": {"enabled": True}},
    "network policy in full": {
        "networkPolicy": {
            "enabled": True,
            "ingressFrom": [_PEER],
            "egressTo": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}],
            "extraEgress": [{"ports": [{"port": 3128, "protocol": "TCP"}], "to": [_PEER]}],
        }
    },
    "service monitor": {"serviceMonitor": {"enabled": True}},
    "service monitor in full": {
        "serviceMonitor": {
            "enabled": True,
            "namespace": "prometheus",
            "labels": {"release": "kube-prometheus-stack"},
            "interval": "1m30s",
            "scrapeTimeout": "10s",
            "relabelings": _RELABEL,
            "metricRelabelings": [{"action": "drop", "regex": "go_.*"}],
            "jobLabel": "app.kubernetes.io/name",
            "targetLabels": ["team"],
            "podTargetLabels": ["app.kubernetes.io/version"],
            "params": {"name[]": ["up"]},
            "proxyUrl": "http://proxy.example.com:3128",
            "sampleLimit": 100000,
            "honorLabels": True,
        }
    },
    "pod monitor": {
        "podMonitor": {
            "enabled": True,
            "namespace": "prometheus",
            "labels": {"release": "x"},
            "interval": "30s",
            "relabelings": _RELABEL,
        }
    },
    "scrape config": {"scrapeConfig": {"enabled": True}},
    "scrape config in full": {
        "scrapeConfig": {
            "enabled": True,
            "namespace": "prometheus",
            "labels": {"release": "x"},
            "jobName": "workflows",
            "interval": "30s",
            "scrapeTimeout": "10s",
            "scheme": "https",
            "tlsConfig": {"ca": {"secret": {"name": "web", "key": "ca.crt"}}},
            "basicAuth": {"username": {"name": "scrape", "key": "username"}},
            "params": {"name[]": ["up"]},
            "proxyUrl": "http://proxy.example.com:3128",
            "sampleLimit": 100000,
            "honorLabels": True,
            "relabelings": [{"targetLabel": "cluster", "replacement": "a"}],
            "metricRelabelings": [{"action": "drop", "regex": "go_.*"}],
        }
    },
    "alerts": {"prometheusRule": {"enabled": True}},
    "alerts in full": {
        "prometheusRule": {
            "enabled": True,
            "namespace": "prometheus",
            "labels": {"role": "alert-rules"},
            "alertLabels": {"team": "sre", "severity": "never beats the alert's own"},
            "disabled": ["CloudflareWorkflowStepRetrying"],
            "parameters": {
                "stuckAfterSeconds": 7200,
                "errorBudget": 0.001,
                "labels": "cluster, account",
                "runbooks": "https://wiki.example.com/runbooks",
            },
            "stuckAfterSeconds": {"reports": 14400},
            "waitingAfterSeconds": {"trials": 2678400},
            "additionalGroups": [
                {"name": "mine", "rules": [{"record": "a:b", "expr": "vector(1)"}]}
            ],
        }
    },
    "dashboards": {
        "dashboards": {
            "enabled": True,
            "namespace": "grafana",
            "labels": {"grafana_dashboard": None, "dashboard": "1"},
            "annotations": {"grafana_folder": "Cloudflare Workflows"},
        }
    },
    "everything": {
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
}
