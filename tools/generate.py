"""Writes every generated file (`make docs`)."""

from tools import (
    alert_rules,
    chart_files,
    configuration_reference,
    grafana_dashboards,
    metrics_reference,
)

GENERATORS = (
    alert_rules,
    grafana_dashboards,
    chart_files,
    configuration_reference,
    metrics_reference,
)


def main() -> None:
    for module in GENERATORS:
        for path, text in module.outputs().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
