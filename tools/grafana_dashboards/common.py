"""What several dashboards have in common."""

from tools.alert_rules import parameters
from tools.grafana_dashboards.dashboard import annotation, label_variable
from tools.grafana_dashboards.panels import GREEN, RED, YELLOW, thresholds

DEFAULTS = {name: parameter["default"] for name, parameter in parameters().items()}
"""Of the alerts' parameters."""
IN = 'account=~"$account", workflow=~"$workflow"'
"""What the variables select."""
BY = "account, workflow"
PREFIX = "cloudflare_workflow_instance"
ACCOUNT = label_variable("account", "Account", "cloudflare_workflow_up")
WORKFLOW = label_variable("workflow", "Workflow", 'cloudflare_workflow_up{account=~"$account"}')
VARIABLES = [ACCOUNT, WORKFLOW]
BAD = thresholds((GREEN, None), (RED, 1))
AGE = thresholds(
    (GREEN, None),
    (YELLOW, DEFAULTS["staleAfterSeconds"] / 2),
    (RED, DEFAULTS["staleAfterSeconds"]),
)
NONE = "None"
UNKNOWN = "Not known"
"""No number, which would look like a good one while no exporter is scraped."""
ALERTS = annotation(
    "Alerts",
    "red",
    f'count by (alertname, {BY}) (ALERTS{{alertname=~"CloudflareWorkflow.*", '
    f'alertstate="firing", {IN}}})',
    "{{alertname}}",
    "{{account}} {{workflow}}",
)
DEPLOYMENTS = annotation(
    "New versions",
    "blue",
    f"cloudflare_workflow:instances_by_version:count{{{IN}}} "
    f"unless last_over_time(cloudflare_workflow:instances_by_version:count{{{IN}}}[1h] offset 5m)",
    "New version of {{workflow}}",
    "{{version_id}}",
)


def once(value: str, labels: str = "") -> str:
    """A metric of workflows, once for each although several targets may show it."""
    by = f"{BY}, {labels}" if labels else BY
    return f"max by ({by}) ({value})"


def age(selector: str, of: str = "data") -> str:
    return f"time() - {once(f'cloudflare_workflow_{of}_timestamp_seconds{{{selector}}} > 0')}"
