"""Grafana's dashboards: workflows, their steps, one instance, and the exporter's health.

Every panel honours every variable of its dashboard. Graphs over time read metrics of workflows and
recording rules, never a series of each instance: Prometheus refuses a query that loads more than
50,000,000 samples (`benchmarks/rules_cost.py`). Tables of instances ask for the end of the time
shown.
"""

import json
from pathlib import Path

from tools import CHART, ROOT
from tools.grafana_dashboards import exporter, fleet, instance, steps

FOLDER = ROOT / "grafana" / "dashboards"

ALL = (fleet.board, steps.board, instance.board, exporter.board)


def outputs() -> dict[Path, str]:
    """Each generated file with its content."""
    boards = [board() for board in ALL]
    return {
        folder / f"{board['uid']}.json": json.dumps(board, indent=2) + "\n"
        for folder in (FOLDER, CHART / "files" / "dashboards")
        for board in boards
    }
