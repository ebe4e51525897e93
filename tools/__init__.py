"""Programs for the maintainers: the generators of files, each with one source, and the release.

`python -m tools.generate` (`make docs`) writes all generated files; a test fails when one is out of
date. A generator has `outputs`, its files with their content:

- `alert_rules`: rules for Prometheus, the chart and Grafana, and the tables of docs/alerting.md,
  from alerts/
- `grafana_dashboards`: the dashboards, a module each, and what they are made of
- `chart_files`: Chart.yaml, the table of values, and values.schema.json with the exporter's
  settings (`chart_config_schema`)
- `configuration_reference`: the tables of docs/configuration.md, from the settings
- `metrics_reference`: the tables of docs/metrics.md, from the catalogue
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "cloudflare-workflows-exporter"
NOTICE = "# Made by `make docs`"
