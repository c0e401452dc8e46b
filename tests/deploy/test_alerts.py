"""Alerts and dashboard: valid, tested, explained, and about metrics that a server has."""

import json
import re
import subprocess
import urllib.request

from harness import Server
from harness.process import ROOT

ALERTS = ROOT / "deploy/alerts.yml"
RUNBOOK = ROOT / "docs/operations.md"
# What Prometheus itself knows of a target.
OF_PROMETHEUS = {"up"}


def test_promtool_finds_nothing():
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=ROOT / "deploy", capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_runbook():
    text = ALERTS.read_text()
    names = re.findall(r"- alert: (\w+)", text)
    links = re.findall(r"runbook: docs/operations\.md#(\w+)", text)
    assert len(names) == len(links) >= 20
    sections = {title.lower() for title in re.findall(r"^#### (Jam\w+)$", RUNBOOK.read_text(), re.MULTILINE)}
    assert set(links) == sections


def test_each_metric_that_is_asked_for_is_scraped(tmp_path):
    dashboard = json.loads((ROOT / "deploy/grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked += re.findall(r"expr: (?!>-)(.*)$", ALERTS.read_text(), re.MULTILINE)
    asked += re.findall(r"expr: >-\n((?: {10}.*\n)+)", ALERTS.read_text())
    asked += [RUNBOOK.read_text()]
    names = {name for text in asked for name in re.findall(r"\b(?:jam|process)_[a-z_]+[a-z]\b", text)}
    assert len(names) > 30
    labels = {pair for text in asked for pair in re.findall(r'\b(\w+)=~?"([\w|]+)"', text)}
    with Server(tmp_path, admin=True) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.admin}/metrics", timeout=10) as answer:
            scrape = answer.read().decode()
    series = {line.split("{")[0].split(" ")[0] for line in scrape.splitlines() if not line.startswith("#")}
    series |= set(re.findall(r"^# TYPE (\w+) histogram$", scrape, re.MULTILINE))
    assert names - OF_PROMETHEUS - series == set()
    for label, values in labels - {("job", "jam-mqtt")}:
        if label not in ("instance", "job"):
            for value in values.split("|"):
                assert f'{label}="{value}"' in scrape, f"{label}={value}"
