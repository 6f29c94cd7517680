"""Grafana's boards: the JSON is what the code makes, and all that it says can be there."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.rendering import FOLDER, render, rendered
from tests.deploy.queries import all_panels, variables_in

BOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
UIDS = {"overview": "nablad-overview", "job": "nablad-job", "service": "nablad-service"}

# What Grafana itself gives values to.
BUILT_IN = {"__all", "__interval", "__rate_interval", "__range", "__value", "__url_time_range"}
# Fields of annotation queries that Prometheus's plugin reads, and the SDK's type leaves out.
OF_THE_PLUGIN = {"titleFormat", "step"}

every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def test_the_files_are_what_the_code_makes() -> None:
    """`make boards` changes nothing."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == {
        path.name: text for path, text in rendered()
    }


@every_board
def test_the_types_of_the_sdk_know_all_fields(board: dict[str, Any]) -> None:
    """Reading a file into the SDK's types and writing it again loses nothing and adds nothing."""
    register_default_plugins()
    for annotation in board["annotations"]["list"]:
        assert annotation.keys() >= OF_THE_PLUGIN
    known = board | {"annotations": {"list": [_without_the_plugins(each) for each in board["annotations"]["list"]]}}
    assert json.loads(render(Dashboard.from_json(known))) == known


def _without_the_plugins(annotation: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in annotation.items() if name not in OF_THE_PLUGIN}


def test_a_field_that_grafana_does_not_know_is_found() -> None:
    """The test above can fail: a misspelt field does not come back."""
    register_default_plugins()
    board = json.loads((FOLDER / "service.json").read_text(encoding="utf-8"))
    panel = next(panel for panel in all_panels(board) if panel["type"] == "timeseries")
    panel["options"]["legend"]["placment"] = "right"
    assert json.loads(render(Dashboard.from_json(board))) != board


def test_boards_have_their_addresses() -> None:
    """Bookmarks and links hold the uids."""
    assert {name: board["uid"] for name, board in BOARDS.items()} == UIDS


@every_board
def test_panels_explain_themselves(board: dict[str, Any]) -> None:
    """Each has a title of its own, a description in sentences, a unit, and a legend for each query."""
    panels = list(all_panels(board))
    titles = [panel["title"] for panel in panels]
    assert sorted(titles) == sorted(set(titles))
    for panel in panels:
        assert re.fullmatch(r"[A-Z0-9`].+\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
    assert all(row["title"] for row in board["panels"] if row["type"] == "row")


@every_board
def test_figures_have_colours_of_their_own(board: dict[str, Any]) -> None:
    """Without thresholds, Grafana would paint everything from 80 on red."""
    for panel in all_panels(board):
        if panel["type"] == "stat":
            steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            values = [step["value"] for step in steps]
            assert values == sorted(set(values)), panel["title"]
            assert values[0] == 0, panel["title"]


@every_board
def test_panels_have_numbers_of_their_own(board: dict[str, Any]) -> None:
    """Grafana tells panels and rows apart by them."""
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))


@every_board
def test_no_panel_lies_on_another(board: dict[str, Any]) -> None:
    """All lie within the 24 columns, and every line is full."""
    cells = [cell for panel in board["panels"] for cell in _cells(panel["gridPos"])]
    assert len(cells) == len(set(cells))
    assert all(0 <= column < 24 for column, _ in cells)
    lines = {line for _, line in cells}
    assert set(cells) == set(itertools.product(range(24), lines))


def _cells(position: dict[str, int]) -> Iterator[tuple[int, int]]:
    x, y, w, h = (position[name] for name in "xywh")
    return itertools.product(range(x, x + w), range(y, y + h))


@every_board
def test_variables_are_there(board: dict[str, Any]) -> None:
    """What a board uses is at its top, or comes from Grafana, or from where a link leads."""
    there = {variable["name"] for variable in board["templating"]["list"]}
    assert variables_in(json.dumps(board)) <= there | BUILT_IN
    assert there == {"datasource", "instance"} | ({"job_id"} if board["uid"] == UIDS["job"] else set())


@every_board
def test_links_lead_to_boards(board: dict[str, Any]) -> None:
    """Each board leads to the two others, with time range and variables."""
    assert {link["url"] for link in board["links"]} == {f"/d/{uid}" for uid in UIDS.values() if uid != board["uid"]}
    assert all(link["keepTime"] and link["includeVars"] for link in board["links"])
    assert set(re.findall(r"/d/([\w-]+)", json.dumps(board))) <= set(UIDS.values())


def test_a_job_leads_to_its_board() -> None:
    """The table of running jobs carries the job, the data source, the services and the time range over."""
    table = next(panel for panel in all_panels(BOARDS["overview"]) if panel["type"] == "table")
    (job,) = (each for each in table["fieldConfig"]["overrides"] if each["matcher"]["options"] == "Job")
    (link,) = job["properties"][0]["value"]
    assert link["url"].startswith(f"/d/{UIDS['job']}?var-job_id=${{__value.raw}}&")
    assert variables_in(link["url"]) >= {"datasource", "instance", "__url_time_range"}


def test_every_column_of_the_table_has_a_unit() -> None:
    """Overrides name columns that there are."""
    table = next(panel for panel in all_panels(BOARDS["overview"]) if panel["type"] == "table")
    (organize,) = (each["options"] for each in table["transformations"] if each["id"] == "organize")
    values = {f"Value #{target['refId']}": target["legendFormat"] for target in table["targets"]}
    assert organize["renameByName"] == {"job_id": "Job", "instance": "Service"} | values
    assert {each["matcher"]["options"] for each in table["fieldConfig"]["overrides"]} == {"Job", *values.values()}


def test_provisioning_fits_the_boards() -> None:
    """The files name a data source of the type that the boards ask for, and a folder of files."""
    folder = FOLDER.parent / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "nablad.yaml").read_text())["providers"]
    scrape = yaml.safe_load((FOLDER.parents[1] / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["type"] == "prometheus"
    assert source["url"] == "$PROMETHEUS_URL"
    assert source["jsonData"]["timeInterval"] == scrape["scrape_interval"]
    assert provider["type"] == "file"
