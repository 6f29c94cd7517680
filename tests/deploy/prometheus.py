"""Starts a Prometheus for tests: real queries of boards and alerts are asked of it."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

__all__ = ["PROGRAM", "Prometheus", "PrometheusError", "prometheus"]

PROGRAM: Final = shutil.which("prometheus")
"""Where it is installed; None if it is not."""

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 20.0
_ANSWER_SECONDS: Final = 20.0


class PrometheusError(Exception):
    """It did not start, or refuses a query; the message says why."""


@dataclass(frozen=True)
class Prometheus:
    """One that runs.

    Attributes:
        url: Where its HTTP API is.
    """

    url: str

    def series(self, expression: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        """What an expression is over a time, from and to Unix seconds: labels as `metric`, (time, text) as `values`.

        Raises:
            PrometheusError: It is not valid.
        """
        found = self.get("query_range", query=expression, start=begin, end=end, step=step)
        result: list[dict[str, Any]] = found["result"]
        return result

    def value(self, expression: str) -> list[dict[str, Any]]:
        """What an expression is now: labels as `metric`, (time, text) as `value`."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def get(self, call: str, **parameters: object) -> Any:
        """The data of a call of the API.

        Raises:
            PrometheusError: It refuses.
        """
        try:
            with urlopen(f"{self.url}/api/v1/{call}?{urlencode(parameters)}", timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 (our own)
                return json.load(answer)["data"]
        except HTTPError as error:
            with error:
                raise PrometheusError(json.load(error).get("error", str(error))) from error


@contextmanager
def prometheus(folder: Path, targets: Sequence[str], rules: Path, scrape_seconds: float) -> Iterator[Prometheus]:
    """A Prometheus for as long as the block lasts.

    Args:
        folder: For its configuration, database and log.
        targets: host:port of the metrics of services.
        rules: Its rules.
        scrape_seconds: How often it scrapes them, and looks at the rules.

    Raises:
        PrometheusError: It is not installed, or did not start.
    """
    if PROGRAM is None:
        raise PrometheusError("there is no prometheus on this machine: install it (Debian: apt install prometheus)")
    port = _free_port()
    config = folder / "prometheus.yml"
    # JSON is YAML.
    config.write_text(json.dumps(_configuration(targets, rules, scrape_seconds)), encoding="utf-8")
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    options += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen([PROGRAM, *options], stdout=output, stderr=output)
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        _await_ready(server, process, log)
        yield server
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)


def _configuration(targets: Sequence[str], rules: Path, seconds: float) -> Mapping[str, Any]:
    interval = f"{round(seconds * 1000)}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(rules.resolve())],
        "scrape_configs": [{"job_name": "nablad", "static_configs": [{"targets": list(targets)}]}],
    }


def _await_ready(server: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{server.url}/-/ready", timeout=1):  # noqa: S310 (our own)
                return
        except (URLError, OSError):
            time.sleep(0.05)
    raise PrometheusError(f"prometheus did not start: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def _free_port() -> int:
    """One that nobody listens at now; Prometheus does not say which one it chose itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
