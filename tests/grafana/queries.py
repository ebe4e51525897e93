"""The queries of a dashboard, as Grafana would send them."""

from typing import Any


def expressions(board: dict[str, Any]) -> list[str]:
    """Every PromQL expression of a dashboard's panels."""
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def filled_in(expression: str) -> str:
    """An expression with all accounts, workflows and steps, over a minute."""
    values = {"account": ".*", "workflow": ".*", "step": ".*"}
    intervals = {"__range": "1m", "__rate_interval": "1m"}
    for name, value in {**values, **intervals}.items():
        expression = expression.replace(f"${name}", value)
    return expression
