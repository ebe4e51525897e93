"""Writes everything that is generated."""

import sys

from tools import alerts, chart, configuration, dashboards


def main() -> int:
    for module in (alerts, dashboards, chart, configuration):
        for path, text in module.outputs().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
