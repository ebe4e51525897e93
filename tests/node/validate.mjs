// Validates objects of the Prometheus operator by its own schemas: reads a JSON object a line, writes
// its mistakes, a JSON list a line.
import { createInterface } from "node:readline";
import { AlertmanagerConfig } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1alpha1";
import { PodMonitor, PrometheusRule, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const models = { AlertmanagerConfig, PodMonitor, PrometheusRule, ServiceMonitor };

function mistakes(object) {
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
  console.log(JSON.stringify(mistakes(JSON.parse(line))));
}
