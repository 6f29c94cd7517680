"""`nabla demo`: one whole training job, from its data to a prediction."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from nablad.cli.exits import EndError, ExitCode
from nablad.cli.settings import Settings

if TYPE_CHECKING:
    from nablad.client import Client

_MODEL_FILE = "demo-model.safetensors"
_LEAST_ACCURACY = 0.96
_WORKERS = 2
_STDERR = 2
_METRICS = ("nablad_job_training_cost", "nablad_job_validation_cost", "nablad_job_validation_accuracy_ratio")


@click.command()
@click.option("--server", metavar="ADDRESS", help="Address of a running service to use instead of starting one.")
@click.option(
    "--keep",
    default=".",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Folder for {_MODEL_FILE}. Default: the current folder.",
)
@click.pass_obj
def demo(settings: Settings, server: str | None, keep: Path) -> None:
    """Teach a network to read handwritten digits.

    Starts a service on this machine, trains with two workers, shows the metrics, exports the model, predicts one digit
    and stops the service.
    """
    begun_s = time.monotonic()
    keep.mkdir(parents=True, exist_ok=True)
    with _service(settings.server if server is None else server) as (service, metrics_url), service.connect() as client:
        accuracy = _run(client, service, metrics_url, keep / _MODEL_FILE)
    seconds = time.monotonic() - begun_s
    if accuracy < _LEAST_ACCURACY:
        raise EndError(
            f"The accuracy on the held-out digits is {accuracy:.2%} after {seconds:.1f} s; expected at least "
            f"{_LEAST_ACCURACY:.0%}.",
            ExitCode.JOB_FAILED,
        )
    click.echo(f"Accuracy on the held-out digits: {accuracy:.2%}. The demo took {seconds:.1f} s.")


@contextmanager
def _service(server: str | None) -> Iterator[tuple[Settings, str | None]]:
    """Yields the service at an address, or else one that lives as long as the block, with the URL of its metrics."""
    if server is not None:
        yield Settings(server), None
        return
    from nablad.local import LocalService, LocalServiceError  # noqa: PLC0415  # not for `nabla --help`

    click.echo("Starting a service on this machine …")
    with _stopped_by_signals():
        try:
            with LocalService(cpus=max(_WORKERS, os.cpu_count() or 1)) as local:
                click.echo(f"It listens on {local.address}; its metrics are on {local.metrics_url}.")
                yield Settings(local.address), local.metrics_url
        except LocalServiceError as error:
            raise EndError(
                f"{error}\nTo use a service that runs already, give its address with --server.", ExitCode.REFUSED
            ) from error


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Makes SIGTERM and a closed terminal do what Ctrl-C does, and says at once that the service is being stopped.

    Its end may take many seconds, in which nothing else would be printed.
    """
    present = signal.getsignal(signal.SIGINT)
    interrupt = present if callable(present) else signal.default_int_handler

    def stop(number: int, frame: FrameType | None) -> None:
        try:
            interrupt(number, frame)
        except KeyboardInterrupt:
            with suppress(OSError):  # not by click: the signal may have come in the middle of a print
                os.write(_STDERR, b"\nStopping the service ...\n")
            raise

    ignored = present is signal.SIG_IGN  # as under nohup
    numbers = (signal.SIGTERM, signal.SIGHUP, *(() if ignored else (signal.SIGINT,)))
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(client: "Client", service: Settings, metrics_url: str | None, model_file: Path) -> float:
    """Trains, exports the model and predicts one digit.

    Returns:
        Accuracy on the held-out digits.
    """
    job_id = _submit(client)
    _watch(client, service, job_id, private=metrics_url is not None)
    trained = client.job(job_id)
    if metrics_url is not None:
        _show_metrics(metrics_url, job_id)
    client.export_model(trained.model_id, model_file, overwrite=True)
    click.echo(f"The model is in {model_file}.")
    _predict_one(client, trained.model_id)
    return trained.progress.validation.accuracy


def _submit(client: "Client") -> str:
    """Registers the digits, if they are not there yet, and queues the job."""
    from nablad.demo import FILES, JOB_FILE  # noqa: PLC0415  # not for `nabla --help`
    from nablad.errors import AlreadyExistsError  # noqa: PLC0415  # as above
    from nablad.jobspec import load  # noqa: PLC0415  # as above

    for name, file in FILES.items():
        try:
            added = client.add_dataset(name, [file])
        except AlreadyExistsError:
            added = client.dataset(name)
        click.echo(f"Data set {name}: {added.rows:,} rows, {added.features} features, {added.classes} classes.")
    return client.submit(load(JOB_FILE)).job_id


def _watch(client: "Client", service: Settings, job_id: str, *, private: bool) -> None:
    """Shows the job until it ends. After Ctrl-C, a job of a running service goes on; one of our own service ends."""
    from nablad.cli.watching import Watch, watch_job  # noqa: PLC0415  # as above

    ending = Watch(client, service, job_id).run("table") if private else watch_job(client, service, job_id, 1, "table")
    if ending is not ExitCode.SUCCESS:
        click.get_current_context().exit(ending)


def _show_metrics(url: str, job_id: str) -> None:
    from nablad.demo import scrape  # noqa: PLC0415  # as above

    click.echo("The same numbers, as Prometheus reads them:")
    for sample in scrape(url, job_id, _METRICS):
        click.echo(f"  {sample}")


def _predict_one(client: "Client", model_id: str) -> None:
    """Draws a digit that the model has not been trained with, and predicts it."""
    from nablad.demo import ONE_FILE, ONE_LABEL, draw  # noqa: PLC0415  # as above

    with client.predict(model_id, [ONE_FILE]) as run:
        prediction = next(run)
    for line in draw(ONE_FILE.read_text()):
        click.echo(f"  {line}")
    sure = prediction.outputs[prediction.label]
    click.echo(f"The model reads a {prediction.label} (output {sure:.3f}); it was written as a {ONE_LABEL}.")
