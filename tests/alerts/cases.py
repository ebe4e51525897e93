"""The cases of alerts' tests, as promtool takes them, and what else may be true of each."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

THRESHOLDS = {
    "cloudflare_workflow:stuck_after:seconds",
    "cloudflare_workflow:waiting_after:seconds",
    "cloudflare_workflows_exporter:wanted:count",
}
"""Thresholds of single workflows and jobs, which people record themselves."""


def twins(series: str) -> list[str]:
    """A series as two targets give it; one of a recorded threshold is there once."""
    if series.partition("{")[0] in THRESHOLDS:
        return [series]
    return [f'{series.removesuffix("}")}, scrape="{name}"}}' for name in ("a", "b")]


def samples(values: str) -> list[str]:
    """The samples of a series in promtool's notation, each by itself."""
    found: list[str] = []
    for term in values.split():
        repeated = re.fullmatch(r"(_|-?[\d.]+)(?:([+-][\d.]+))?x(\d+)", term)
        if repeated is None:
            found.append(term)
        elif repeated[1] == "_":
            found += ["_"] * int(repeated[3])
        else:
            step = float(repeated[2] or 0)
            found += [f"{float(repeated[1]) + step * n:g}" for n in range(int(repeated[3]) + 1)]
    return found


def of_two_targets(case: dict[str, Any]) -> dict[str, Any]:
    """A case in an HA pair of Prometheus servers, or where two scrape one exporter: each series is
    there twice."""
    twice = [
        {**series, "series": twin}
        for series in case["input_series"]
        for twin in twins(series["series"])
    ]
    return {**case, "input_series": twice}


def failed_scrapes(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A case where every tenth scrape fails, and the one at each moment at which the alert fires:
    it continues, and its wait has not begun again.

    There is none where scrapes fail already, nor where samples are more than a minute apart.
    """
    firing_at = {index_of(at, case) for at in case["alert_rule_test"] if at["exp_alerts"]}
    up = [samples(s["values"]) for s in case["input_series"] if s["series"].startswith("up{")]
    if not firing_at or step_of(case) > 1 or any({"0", "1"} <= {*values} for values in up):
        return

    def failed(series: dict[str, str]) -> dict[str, str]:
        if len(twins(series["series"])) == 1:
            return series
        nothing = "0" if series["series"].startswith("up{") else "stale"
        values = [
            nothing if value != "_" and (n % 10 == 7 or n in firing_at) else value
            for n, value in enumerate(samples(series["values"]))
        ]
        return {**series, "values": " ".join(values)}

    yield {
        **case,
        "name": f"{case['name']} Scrapes fail.",
        "input_series": [failed(series) for series in case["input_series"]],
    }


def hand_overs(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A case where for two minutes after a tested moment no replica has the workflow: an alert that
    fires continues, and none fires that wouldn't without the hand-over."""
    step = step_of(case)
    gap = max(1, int(2 / step))
    firing_at = [moment for moment in case["alert_rule_test"] if moment["exp_alerts"]]
    for moment in firing_at or case["alert_rule_test"]:
        at = index_of(moment, case) + 1
        during = {**moment, "eval_time": f"{int((at + gap - 1) * step)}m"}
        yield {
            "name": f"{case['name']} Handed over at {moment['eval_time']}.",
            "interval": case["interval"],
            "input_series": [
                part for series in case["input_series"] for part in handed_over(series, at, gap)
            ],
            "alert_rule_test": [*case["alert_rule_test"], during],
        }


def handed_over(series: dict[str, str], at: int, gap: int) -> list[dict[str, str]]:
    """A series that one target has for `at` samples, and another one after a gap."""
    if len(twins(series["series"])) == 1:
        return [series]
    before, after = twins(series["series"])
    values = samples(series["values"])
    return [
        {"series": before, "values": " ".join([*values[:at], "stale"])},
        {"series": after, "values": " ".join(["_"] * (at + gap) + values[at + gap :])},
    ]


def step_of(case: dict[str, Any]) -> float:
    """Minutes from one sample of a case to the next."""
    return 0.5 if case["interval"] == "30s" else minutes(case["interval"])


def index_of(moment: dict[str, Any], case: dict[str, Any]) -> int:
    """Which sample of a case is the one at a tested moment."""
    return int(minutes(moment["eval_time"]) / step_of(case))


def minutes(duration: str) -> int:
    """A duration in hours and minutes, in minutes."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?", duration)
    assert found, duration
    return 60 * int(found[1] or 0) + int(found[2] or 0)


def together(cases: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Cases of one interval as one, where each has accounts and workflows of its own: what takes
    promtool's time is how often it evaluates the rules."""
    found: dict[str, Any] = {"input_series": [], "promql_expr_test": []}
    for number, case in enumerate(cases):

        def own(text: str, number: int = number) -> str:
            return re.sub(r'\b(account|workflow)="([^"]+)"', rf'\1="\2@{number}"', text)

        found["interval"] = case["interval"]
        found["input_series"] += [
            {**series, "series": own(series["series"])} for series in case["input_series"]
        ]
        for at in case["alert_rule_test"]:
            which = f'alertname="{at["alertname"]}", alertstate="firing"'
            found["promql_expr_test"].append(
                {
                    # An alert on an exporter has no account.
                    "expr": f'ALERTS{{{which}, account=~"(.*@{number})?"}} # {case["name"]}',
                    "eval_time": at["eval_time"],
                    "exp_samples": [
                        {"labels": own(firing(at["alertname"], **alert["exp_labels"])), "value": 1}
                        for alert in at["exp_alerts"]
                    ],
                }
            )
    return found


def firing(name: str, **labels: str) -> str:
    """An alert that fires, as a series."""
    pairs = {"alertname": name, "alertstate": "firing", **labels}
    return "ALERTS{" + ", ".join(f'{key}="{value}"' for key, value in pairs.items()) + "}"
