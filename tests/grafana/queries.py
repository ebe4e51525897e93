"""The queries of a dashboard, as Grafana would send them."""

import re
from typing import Any

INTERVALS = {"__range": "1m", "__rate_interval": "1m"}


def expressions(board: dict[str, Any]) -> list[str]:
    """Every PromQL expression of a dashboard's panels."""
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def annotations(board: dict[str, Any]) -> list[str]:
    """Every PromQL expression of a dashboard's annotations."""
    return [annotation["target"]["expr"] for annotation in board["annotations"]["list"]]


def filled_in(expression: str) -> str:
    """An expression with all values of each variable, over a minute."""
    expression = re.sub(r'="\$', '=~"$', expression)
    return re.sub(r"\$(\w+)", lambda match: INTERVALS.get(match[1], ".*"), expression)
