"""Pictures of the boards without Grafana: their own queries, asked of a real Prometheus, drawn by matplotlib.

``python -m deploy.grafana.pictures`` runs a service, a job that loses a worker and its parameter server, and a
Prometheus, and writes docs/boards/*.png.
"""

import json
import os
import re
import signal
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import FuncFormatter

from benchmarks.robustness.daemon import Daemon, start_daemon
from benchmarks.robustness.roles import pids_of
from deploy.grafana.queries import all_panels, substitute
from deploy.grafana.rendering import FOLDER
from deploy.prometheus.process import Prometheus, prometheus
from nablad import Client
from nablad.jobspec import parse
from nablad.v1 import jobs_pb2 as jobs_pb

_ROOT: Final = Path(__file__).parents[2]
_OUTPUT: Final = _ROOT / "docs" / "boards"
_SCRAPE_SECONDS: Final = 1.0
_COLUMNS: Final = 24
_INCHES_PER_COLUMN, _INCHES_PER_ROW = 0.62, 0.34
_MOST_LEGEND_LINES: Final = 6

_JOB_FILE: Final = """
name: digits
data: {train: digits-train, validation: digits-validation, scaling: standard}
model: {layers: [64, 400, 100, 10], activation: sigmoid, output_activation: sigmoid}
cost: {function: log_loss}
training: {epochs: 100000, batch_size: 100, learning_rate: 0.5, seed: 1}
distribution: {workers: 2}
checkpoints: {every_seconds: 10}
"""


@click.command()
@click.option("--seconds", type=float, default=30.0, show_default=True, help="Of each of the three parts of the run.")
def main(seconds: float) -> None:
    """Run a job under a Prometheus, and draw the boards."""
    with tempfile.TemporaryDirectory(prefix="nablad-boards-") as name:
        folder = Path(name)
        daemon = start_daemon(folder / "data", folder / "log", uuid.uuid4().hex, "--cpus", "2")
        try:
            target = urlsplit(daemon.metrics_url).netloc
            rules = _ROOT / "deploy" / "prometheus" / "rules" / "nablad.yml"
            with prometheus(folder, [target], rules, _SCRAPE_SECONDS) as server:
                begin = time.time()
                job_id = _train(daemon, seconds)
                _draw_all(server, {"job_id": job_id}, begin, time.time())
        finally:
            daemon.stop()


def _train(daemon: Daemon, seconds: float) -> str:
    """A job with its adventures; it still runs afterwards."""
    with Client(daemon.address) as client:
        for part in ("train", "validation"):
            client.add_dataset(f"digits-{part}", [_ROOT / "nablad" / "demo" / f"digits-{part}.npz"])
        spec, violations = parse(_JOB_FILE)
        if violations:
            raise click.ClickException(str(violations))
        job_id = client.submit(spec).job_id
        # More than there is room for: it stays in the queue.
        spec.distribution.workers = 3
        waiting = client.submit(spec).job_id
        next(news for news in client.watch(job_id) if isinstance(news, jobs_pb.Event) and news.checkpoint)
        for victim in ("worker", "parameter server"):
            time.sleep(seconds)
            os.kill(min(pids_of(victim, daemon.processes())), signal.SIGKILL)
        time.sleep(seconds)
        client.cancel(waiting)
        time.sleep(2 * _SCRAPE_SECONDS)
    return job_id


def _draw_all(server: Prometheus, chosen: Mapping[str, str], begin: float, end: float) -> None:
    matplotlib.use("agg")
    _OUTPUT.mkdir(exist_ok=True)
    for file in sorted(FOLDER.glob("*.json")):
        board = json.loads(file.read_text(encoding="utf-8"))
        path = _OUTPUT / f"{file.stem}.png"
        _Picture(server, board, chosen, begin, end).save(path)
        click.echo(path.relative_to(_ROOT))


class _Picture:
    """One board over a time."""

    def __init__(
        self, server: Prometheus, board: Mapping[str, Any], chosen: Mapping[str, str], begin: float, end: float
    ) -> None:
        self._server = server
        self._board = board
        window = f"{round(4 * _SCRAPE_SECONDS)}s"
        interval = f"{round(_SCRAPE_SECONDS)}s"
        ranges = {"__interval": interval, "__rate_interval": window, "__range": f"{round(end - begin)}s"}
        self._values = {"instance": ".*", **ranges, **chosen}
        self._begin, self._end = begin, end

    def save(self, path: Path) -> None:
        panels = list(all_panels(self._board))
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
        figure = Figure((_COLUMNS * _INCHES_PER_COLUMN, rows * _INCHES_PER_ROW), layout="none")
        grid = GridSpec(rows, _COLUMNS, figure, left=0.04, right=0.99, top=0.995, bottom=0.005, wspace=2.2, hspace=1.6)
        marks = [*self._marks()]
        for panel in panels:
            place = panel["gridPos"]
            axes = figure.add_subplot(
                grid[place["y"] : place["y"] + place["h"] - 1, place["x"] : place["x"] + place["w"]]
            )
            axes.set_title(panel["title"], fontsize=9, loc="left", fontweight="bold")
            draw = {"timeseries": self._draw_lines, "stat": self._write, "table": self._tabulate}[panel["type"]]
            draw(axes, panel)
            if panel["type"] == "timeseries":
                for moment, colour in marks:
                    axes.axvline(moment - self._begin, color=colour, linewidth=0.8, linestyle="--", alpha=0.6)
        figure.savefig(path, dpi=80)

    def _marks(self) -> Iterator[tuple[float, str]]:
        for annotation in self._board["annotations"]["list"]:
            for series in self._series(annotation["expr"]):
                for moment, _ in series["values"]:
                    yield moment, annotation["iconColor"]

    def _series(self, expression: str) -> Sequence[Mapping[str, Any]]:
        return self._server.series(substitute(expression, self._values), self._begin, self._end, _SCRAPE_SECONDS)

    def _draw_lines(self, axes: Axes, panel: Mapping[str, Any]) -> None:
        lines = [
            (_legend(target, series["metric"]), *_numbers(series["values"], self._begin))
            for target in panel["targets"]
            for series in self._series(target["expr"])
        ]
        for name, times, values in lines:
            axes.plot(times, values, linewidth=1, label=name)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _formatted(value, panel)))
        axes.tick_params(labelsize=7)
        axes.set_xlim(0, self._end - self._begin)
        axes.margins(y=0.15)
        axes.grid(alpha=0.25)
        if lines:
            axes.legend(fontsize=6, loc="upper left", ncols=1 + len(lines) // _MOST_LEGEND_LINES, framealpha=0.6)

    def _write(self, axes: Axes, panel: Mapping[str, Any]) -> None:
        axes.set_axis_off()
        texts = [
            _legend(target, series["metric"]) if panel["options"]["textMode"] == "name" else _last(series, panel)
            for target in panel["targets"]
            for series in self._series(target["expr"])
        ]
        axes.text(0.5, 0.4, " / ".join(texts) or "–", ha="center", va="center", fontsize=11 if len(texts) < 2 else 10)

    def _tabulate(self, axes: Axes, panel: Mapping[str, Any]) -> None:
        """A column for each query, a row for each job."""
        axes.set_axis_off()
        columns = [target["legendFormat"] for target in panel["targets"]]
        rows: dict[str, dict[str, str]] = {}
        for target, column in zip(panel["targets"], columns, strict=True):
            for series in self._series(target["expr"]):
                rows.setdefault(series["metric"].get("job_id", ""), {})[column] = _last(series, panel)
        cells = [[job_id, *(row.get(column, "") for column in columns)] for job_id, row in rows.items()]
        if cells:
            table = axes.table(cells, colLabels=["Job", *columns], loc="upper center")
            table.auto_set_font_size(False)
            table.set_fontsize(7)


def _legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), target.get("legendFormat", ""))


def _numbers(values: Iterable[Sequence[Any]], begin: float) -> tuple[list[float], list[float]]:
    """Seconds since the beginning, and values; a gap where there was none."""
    times: list[float] = []
    numbers: list[float] = []
    for moment, text in values:
        if times and moment - begin - times[-1] > 2 * _SCRAPE_SECONDS:
            times.append(moment - begin)
            numbers.append(float("nan"))
        times.append(moment - begin)
        numbers.append(float(text))
    return times, numbers


def _last(series: Mapping[str, Any], panel: Mapping[str, Any]) -> str:
    return _formatted(float(series["values"][-1][1]), panel)


def _formatted(value: float, panel: Mapping[str, Any]) -> str:
    """As Grafana writes the panel's unit, about."""
    match panel["fieldConfig"]["defaults"].get("unit"):
        case "percentunit":
            return f"{value:.1%}"
        case "bytes" | "binBps":
            return f"{value / (1 << 20):.4g} MiB"
        case "s" | "dtdurations" if value and abs(value) < 1:
            return f"{value * 1000:.3g} ms"
        case "s" | "dtdurations":
            return f"{value:.3g} s"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    main()
