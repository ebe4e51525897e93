// Validates objects of the Prometheus operator and of the Gateway API by their own schemas: reads a JSON
// object a line, writes its problems, a JSON list a line.
import { createInterface } from "node:readline";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import { AlertmanagerConfig, ScrapeConfig } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1alpha1";
import { PodMonitor, PrometheusRule, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const models = { AlertmanagerConfig, HTTPRoute, PodMonitor, PrometheusRule, ScrapeConfig, ServiceMonitor };

function problems(object) {
  const model = models[object.kind];
  if (!model) return [`unknown kind ${object.kind}`];
  try {
    new model(object).validate();
    return [];
  } catch (error) {
    return [error.message];
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(problems(JSON.parse(line))));
}
