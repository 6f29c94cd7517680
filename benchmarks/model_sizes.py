"""Memory of the service by the size of a model: ``python -m benchmarks.model_sizes``. README.md explains it."""

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import machine
from benchmarks.errors import BenchmarkError, JobError
from benchmarks.memory import figure
from benchmarks.report.files import FOLDER, write_report
from benchmarks.report.tables import machine_section, table
from nablad import Client
from nablad.errors import NablaError
from nablad.jobspec import complete, parse
from nablad.local import LocalService, pids_of
from nablad.v1 import jobs_pb2
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["markdown"]

_DISTRIBUTIONS = ("nablad", "grpcio", "ray")

# With 122 features and 2 outputs, each inner node has 125 weights and biases of 8 bytes.
_INNER_NODES = {"1 MB": 1_000, "100 MB": 100_000, "1 GB": 1_000_000}
_FEATURES, _ROWS = 122, 4
_JOB = """
data: {{train: rows}}
model: {{layers: [auto, {nodes}, auto], dtype: float64}}
training: {{epochs: 3, batch_size: {rows}, learning_rate: 1e-6}}
distribution: {{workers: 1, micro_batches: 1}}
checkpoints: {{every_epochs: 1}}
"""
_RESET_PEAK = "5"
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Peak:
    """Memory of one process while something was done, in bytes.

    Attributes:
        resident: Everything in memory, pages of files that are mapped included.
        anonymous: Without those, which the system may drop at any time.
    """

    resident: int
    anonymous: int


Peaks = dict[str, dict[str, Peak]]  # by what was done, by process


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="Results to put beside the new ones.")
@click.option("--output", type=click.Path(path_type=Path), default=FOLDER, help="Folder for the results.")
@click.option("--only", type=click.Choice(list(_INNER_NODES)), help="One size; writes nothing.")
def main(before: Path | None, output: Path, only: str | None) -> None:
    """Train, start from, export and predict with models of three sizes; see how much memory the service takes.

    1 GB takes 10 GB of memory and 5 GB of disk for a minute. Results are written to benchmarks/results.
    """
    try:
        sizes = {size: _measure(size) for size in ([only] if only else _INNER_NODES)}
    except (BenchmarkError, NablaError) as error:
        raise click.ClickException(str(error)) from error
    facts = {"date": datetime.now(UTC).date().isoformat(), **machine.describe(_DISTRIBUTIONS)}
    results = json.loads(json.dumps({"machine": facts, "sizes": sizes}, default=asdict))
    earlier = json.loads(before.read_text(encoding="utf-8")) if before else None
    document = markdown(results, earlier)
    click.echo(document)
    if not only:
        write_report("model_sizes", document, results, output)


def _measure(size: str) -> Peaks:
    """Measures everything that is done with one model, on a service of its own."""
    click.echo(f"{size} …", err=True)
    with (
        tempfile.TemporaryDirectory(prefix="nablad-sizes-") as folder,
        LocalService(cpus=2) as daemon,
        daemon.client() as client,
    ):
        return _exercise(client, daemon, _spec(size), Path(folder))


def _spec(size: str) -> JobSpec:
    spec, violations = parse(_JOB.format(nodes=_INNER_NODES[size], rows=_ROWS))
    if violations:
        raise ValueError(f"the job should have no mistakes, but: {violations[0]}")
    return complete(spec)


def _exercise(client: Client, daemon: LocalService, spec: JobSpec, folder: Path) -> Peaks:
    generator = np.random.default_rng(7)
    rows = folder / "rows.npz"
    np.savez(rows, x=generator.random((_ROWS, _FEATURES)), y=np.arange(_ROWS) % 2)
    client.add_dataset("rows", [rows])
    peaks: Peaks = {}
    with _watched(daemon, peaks, "train, with checkpoints"):
        model_id = _run(client, spec)
    follower = JobSpec()
    follower.CopyFrom(spec)
    follower.training.warm_start.model = model_id
    with _watched(daemon, peaks, "start from the model"):
        _run(client, follower)
    with _watched(daemon, peaks, "verify"):
        job_id = client.verify(model_id).job_id
        _finish(client, job_id)
    with _watched(daemon, peaks, "export"):
        client.export_model(model_id, folder / "exported.safetensors")
    with _watched(daemon, peaks, "predict"):
        for _ in client.predict(model_id, [rows]):
            pass
    return peaks


def _run(client: Client, spec: JobSpec) -> str:
    """Runs a job to its end; gives its id, which is the model's too."""
    return _finish(client, client.submit(spec).job_id)


def _finish(client: Client, job_id: str) -> str:
    for _ in client.watch(job_id):
        pass
    job = client.job(job_id)
    if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        raise JobError(f"The job should have succeeded, but ended otherwise: {job.reason}")
    return job_id


@contextmanager
def _watched(daemon: LocalService, peaks: Peaks, what: str) -> Iterator[None]:
    """Adds the peaks of both processes while the block lasts."""
    (cluster,) = pids_of("cluster process", daemon.processes())
    pids = {"daemon": daemon.process.pid, "cluster process": cluster}
    anonymous = dict.fromkeys(pids, 0)
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            for process, pid in pids.items():
                with suppress(ProcessLookupError):
                    anonymous[process] = max(anonymous[process], figure(pid, "status", "RssAnon:"))

    for pid in pids.values():
        Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    peaks[what] = {process: Peak(figure(pid, "status", "VmHWM:"), anonymous[process]) for process, pid in pids.items()}


def markdown(results: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """The whole document, from what the results file holds."""
    heads = ["model", "process", "while", *(["before"] if before else []), "peak", "without mapped files"]
    return "\n\n".join(
        [
            "# Memory of the service by the size of a model\n\n"
            "Made by `python -m benchmarks.model_sizes`; [README.md](../README.md#model-sizes) says how to read it.",
            machine_section(results["machine"]),
            "## Peaks\n\nIn MB.\n\n" + table(heads, list(_rows(results, before)), words=3),
        ]
    )


def _rows(results: Mapping[str, Any], before: Mapping[str, Any] | None) -> Iterator[Sequence[str]]:
    for process in ("daemon", "cluster process"):
        for what in next(iter(results["sizes"].values())):
            for size, peaks in results["sizes"].items():
                now = peaks[what][process]
                cells = [now["resident"], now["anonymous"]]
                if before:
                    cells.insert(0, before["sizes"][size][what][process]["resident"])
                yield [size, process, what, *(f"{cell / 1e6:,.0f}" for cell in cells)]


if __name__ == "__main__":
    main()
