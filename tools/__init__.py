"""What is generated from one source each: alerts in three forms, dashboards, the tables of the
chart and of the configuration.

`python -m tools.generate` (`make docs`) writes it all; a test fails when something is out of date.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "cloudflare-workflows-exporter"
NOTICE = "# Made by `make docs`"
