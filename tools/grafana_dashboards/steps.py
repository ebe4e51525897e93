"""The dashboard of steps: how long they take, and how often they fail."""

from tools.grafana_dashboards.common import ALERTS, BY, DEFAULTS, DEPLOYMENTS, IN, VARIABLES
from tools.grafana_dashboards.dashboard import dashboard, label_variable
from tools.grafana_dashboards.panels import (
    GREEN,
    RED,
    Json,
    bars,
    heatmap,
    query,
    series,
    thresholds,
)

_STEP = f'{IN}, step=~"$step"'
_NO_STEPS = "No step ended"


def board() -> Json:
    attempts = "cloudflare_workflow_step_attempt_duration_seconds"
    durations = f"cloudflare_workflow_step_duration_seconds_bucket{{{_STEP}, step_type="
    taken = "cloudflare_workflow_step_attempts"
    panels = [
        heatmap(
            "Step duration",
            "Duration of finished steps, including retries and the delays between them.",
            f'sum by (le) (increase({durations}"step"}}[$__rate_interval]))',
            _NO_STEPS,
        ),
        heatmap(
            "Attempt duration",
            "Duration of finished attempts.",
            f"sum by (le) (increase({attempts}_bucket{{{_STEP}}}[$__rate_interval]))",
            _NO_STEPS,
        ),
        bars(
            "Slowest steps",
            "90th percentile over the selected time range.",
            f"topk(10, histogram_quantile(0.9, sum by ({BY}, step, le) "
            f'(increase({durations}"step"}}[$__range]))))',
            "{{account}} {{workflow}}: {{step}}",
            _NO_STEPS,
            unit="s",
        ),
        bars(
            "Steps that fail most",
            "Failed attempts in the selected time range.",
            f"topk(10, sum by ({BY}, step) "
            f'(increase({attempts}_count{{{_STEP}, outcome="failure"}}[$__range])))',
            "{{account}} {{workflow}}: {{step}}",
            "No attempt failed",
        ),
        series(
            "Attempts by outcome",
            "Finished attempts per second.",
            [
                query(
                    f"sum by (outcome) (rate({attempts}_count{{{_STEP}}}[$__rate_interval]))",
                    "{{outcome}}",
                )
            ],
            _NO_STEPS,
            unit="ops",
        ),
        series(
            "Failed attempts by workflow",
            "Share of attempts that failed within 15 minutes; many failed attempts above the line "
            "are a retry storm.",
            [
                query(
                    f"sum by ({BY}) "
                    f'(increase({attempts}_count{{{_STEP}, outcome="failure"}}[15m])) '
                    f"/ sum by ({BY}) (increase({attempts}_count{{{_STEP}}}[15m]))",
                    "{{account}} {{workflow}}",
                )
            ],
            _NO_STEPS,
            unit="percentunit",
            limits=thresholds((GREEN, None), (RED, DEFAULTS["retryStormRatio"])),
        ),
        series(
            "Attempts per step",
            "Mean of finished steps.",
            [
                query(
                    f"sum by ({BY}) (rate({taken}_sum{{{_STEP}}}[$__rate_interval])) "
                    f"/ sum by ({BY}) (rate({taken}_count{{{_STEP}}}[$__rate_interval]))",
                    "{{account}} {{workflow}}",
                )
            ],
            _NO_STEPS,
        ),
        series(
            "Step duration by step",
            "90% of the steps take no longer; points are single steps.",
            [
                query(
                    "histogram_quantile(0.9, sum by (step, le) "
                    f'(rate({durations}"step"}}[$__rate_interval])))',
                    "{{step}}",
                    exemplar=True,
                )
            ],
            _NO_STEPS,
            unit="s",
        ),
    ]
    step = label_variable(
        "step", "Step", f"cloudflare_workflow_step_duration_seconds_count{{{IN}}}"
    )
    return dashboard(
        "cloudflare-workflows-steps",
        "Cloudflare Workflows steps",
        "How long steps and their attempts take, and which fail.",
        [*VARIABLES, step],
        panels,
        annotations=[ALERTS, DEPLOYMENTS],
    )
