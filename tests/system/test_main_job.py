"""The main job, from the command line to a model that predicts."""

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from safetensors.numpy import load_file

from nablad import Client

Nabla = Callable[..., "CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared" / "data" / "mnist"
DIGITS = ROOT / "nablad" / "demo"


@pytest.fixture(scope="module")
def trained(nabla: Nabla, digits: None) -> str:
    """The id of the model that the digits job leaves."""
    watched = nabla("job", "submit", DIGITS / "digits.yaml", "--watch", "-o", "json")
    assert watched.returncode == 0, watched.stderr
    return next(
        job["model_id"]
        for job in json.loads(nabla("job", "list", "-o", "json").stdout)
        if job["spec"]["name"] == "digits"
    )


@pytest.mark.happy
def test_the_digits_are_learned(trained: str, client: Client) -> None:
    """At least 96 % of the held-out digits are read right."""
    assert client.model(trained).validation.accuracy >= 0.96


@pytest.mark.happy
def test_the_exported_model_predicts_what_the_service_predicts(
    trained: str, nabla: Nabla, client: Client, tmp_path: Path
) -> None:
    """The file alone is enough: plain numpy on it gives the service's outputs, and the accuracy of the training."""
    exported = nabla("model", "export", trained, tmp_path / "m.safetensors")
    assert exported.returncode == 0, exported.stderr
    tensors = load_file(tmp_path / "m.safetensors")
    rows = np.load(DIGITS / "digits-validation.npz")
    a = ((rows["x"].astype("f4") - tensors["scaling.shift"].astype("f4")) * tensors["scaling.factor"].astype("f4")).T
    for number in range(3):
        a = 1 / (1 + np.exp(-(tensors[f"W{number}"] @ a + tensors[f"b{number}"][:, np.newaxis])))
    predicted = client.predict(trained, [DIGITS / "digits-validation.npz"])
    answers = list(predicted)
    assert [answer.label for answer in answers] == a.argmax(axis=0).tolist()
    np.testing.assert_allclose([answer.outputs for answer in answers], a.T, rtol=1e-4, atol=1e-6)
    assert predicted.comparison is not None
    assert predicted.comparison.accuracy == client.model(trained).validation.accuracy


@pytest.mark.happy
def test_metrics_show_the_same_numbers(trained: str, daemon: object, client: Client) -> None:
    """What Prometheus scrapes of an ended job is what the job itself says."""
    with urllib.request.urlopen(daemon.metrics_url) as page:  # type: ignore[attr-defined]  # noqa: S310
        text = page.read().decode()
    progress = client.job(trained).progress
    series = dict(re.findall(rf'^(nablad_job_\w+)\{{job_id="{trained}"\}} (\S+)$', text, re.MULTILINE))
    assert float(series["nablad_job_validation_accuracy_ratio"]) == progress.validation.accuracy
    assert float(series["nablad_job_training_cost"]) == progress.training.cost
    assert float(series["nablad_job_steps_total"]) == progress.step == progress.steps
    assert float(series["nablad_job_step"]) == float(series["nablad_job_planned_steps"]) == progress.steps
    assert float(series["nablad_job_samples_total"]) == progress.samples
    assert float(series["nablad_job_step_seconds_count"]) == progress.steps
    assert float(series["nablad_job_workers_alive"]) == 0
    assert 'nablad_jobs{state="succeeded"}' in text


def test_mnist_files_register_and_a_job_runs_on_them(nabla: Nabla, client: Client, tmp_path: Path) -> None:
    """The real IDX files, gzipped as they are published, train a network for an epoch."""
    if not MNIST.is_dir():
        pytest.skip(f"MNIST's IDX files are not in {MNIST}")
    for name, stem in (("mnist-train", "train"), ("mnist-test", "t10k")):
        files = (MNIST / f"{stem}-images-idx3-ubyte.gz", MNIST / f"{stem}-labels-idx1-ubyte.gz")
        added = nabla("dataset", "add", name, *files)
        assert added.returncode == 0, added.stderr
    (tmp_path / "job.yaml").write_text(
        "data: {train: mnist-train, validation: mnist-test, scaling: unit}\n"
        "model: {layers: [auto, 100, 50, auto], activation: sigmoid}\n"
        "training: {epochs: 1, epsilon: 0.5}\n"
        "distribution: {workers: 2}\n"
    )
    watched = nabla("job", "submit", tmp_path / "job.yaml", "--watch")
    assert watched.returncode == 0, watched.stderr
    model = next(iter(client.models()))
    assert list(model.spec.model.layers) == [784, 100, 50, 10]
    assert model.validation.accuracy > 0.7
