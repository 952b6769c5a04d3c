"""The alert rules ask for metrics and labels that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy/prometheus/alerts.yaml"
PAGE = ROOT / "docs/reference/telemetry.md"


def test_every_rule_asks_for_a_metric_that_there_is() -> None:
    rows = re.findall(r"^\| `(headrace_\w+)` \| \w+ \| (.*?) \| .* \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    labels_of = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    rules = [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        (metric,) = re.findall(r"headrace_\w+", rule["expr"])
        assert metric in labels_of, rule["alert"]
        named = re.findall(r"by \((\w+)\)", rule["expr"]) + re.findall(r"\{(\w+)=", rule["expr"])
        assert set(named) <= labels_of[metric], rule["alert"]
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= set(named), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]
