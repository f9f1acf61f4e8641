"""What is ready for Grafana and Prometheus speaks of figures that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from slmops.cli.main import app
from slmops.serve.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"


def expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    rules = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [*shown, *(rule["expr"] for group in rules["groups"] for rule in group["rules"])]


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The names of all series that a server has."""
    families = Metrics("any").registry.collect()
    ends = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
    return {family.name + end for family in families for end in ends.get(family.type, ("",))}


@pytest.mark.parametrize("expression", expressions())
def test_every_figure_is_there(expression, known):
    named = set(re.findall(r"\b(?:gen_ai_(?:server|client)|slmops)_\w+", expression))
    assert named
    assert named <= known


def test_every_kind_of_figure_is_shown(known):
    shown = " ".join(expressions())
    for name in known:
        family = re.sub(r"_(bucket|count|sum|total)$", "", name)
        assert family in shown


def test_the_unit_starts_what_there_is():
    unit = (DEPLOY / "slmops-serve.service").read_text()
    (line,) = re.findall(r"^ExecStart=\S+/slmops (.+)$", unit, re.MULTILINE)
    command, bundle, *told = line.split()
    assert (command, bundle) == ("serve", "/var/lib/slmops/current")
    known = {option for one in get_command(app).commands["serve"].params for option in one.opts}
    assert {option for option in told if option.startswith("--")} <= known


def test_panels_do_not_overlap():
    panels = [panel["gridPos"] for panel in json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"]]
    for i, one in enumerate(panels):
        for other in panels[i + 1 :]:
            apart = any(
                a[at] + a[size] <= b[at]
                for at, size in (("x", "w"), ("y", "h"))
                for a, b in ((one, other), (other, one))
            )
            assert apart
