"""`nabla model`."""

import hashlib
import json
import re

import pytest

from nablad.cli.exits import ExitCode
from nablad.v1 import job_spec_pb2, models_pb2
from nablad.v1.metrics_pb2 import Metrics


@pytest.fixture
def weights(service):
    """The service has one model; gives its bytes."""
    content = b"weights" * 1000
    spec = job_spec_pb2.JobSpec(name="digits", model=job_spec_pb2.ModelSpec(layers=[64, 50, 30, 10]))
    model = models_pb2.Model(
        model_id="digits-1f",
        spec=spec,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        epoch=12,
        training=Metrics(cost=0.01, accuracy=0.99),
        validation=Metrics(cost=0.125, accuracy=0.975),
    )
    service.handlers["GetModel"] = lambda *_: models_pb2.GetModelResponse(model=model)
    service.handlers["ListModels"] = lambda *_: models_pb2.ListModelsResponse(models=[model])
    service.handlers["ExportModel"] = lambda *_: iter([models_pb2.ExportModelResponse(chunk=content)])
    return content


def test_list_shows_shape_and_quality(nabla, weights):
    """Costs of the training and of the validation have columns of their own, as in the list of jobs."""
    head, line = nabla("model", "list").stdout.splitlines()
    columns = re.split("  +", head.strip())
    assert columns[:6] == ["MODEL", "LAYERS", "EPOCH", "TRAINING COST", "VALIDATION COST", "VALIDATION ACCURACY"]
    assert columns[-2:] == ["SIZE", "CREATED"]
    assert line.split() == ["digits-1f", "64-50-30-10", "12", "(last)", "0.01", "0.125", "97.50%", "6.8", "KiB"]
    assert json.loads(nabla("model", "list", "-o", "json").stdout)[0]["validation"]["accuracy"] == 0.975


@pytest.mark.parametrize(
    ("epoch", "keep_best", "shown"), [(12, True, "12 (best)"), (12, False, "12 (last)"), (0, True, "best")]
)
def test_list_says_of_which_epoch_the_weights_and_so_the_figures_are(nabla, service, epoch, keep_best, shown):
    """A job's last figures need not be its model's; models of older services do not know their epoch's number."""
    model = models_pb2.Model(model_id="a", epoch=epoch, training=Metrics(cost=0.5))
    model.spec.training.stopping.keep_best = keep_best
    service.handlers["ListModels"] = lambda *_: models_pb2.ListModelsResponse(models=[model])
    head, line = nabla("model", "list").stdout.splitlines()
    assert line[head.index("EPOCH") :].split("  ")[0] == shown


def test_export_writes_the_file_once(nabla, weights, tmp_path):
    """A second export to the same place needs --overwrite."""
    path = tmp_path / "model.safetensors"
    command = ["model", "export", "digits-1f", str(path)]
    assert nabla(*command).exit_code == ExitCode.SUCCESS
    assert path.read_bytes() == weights
    refused = nabla(*command)
    assert refused.exit_code == ExitCode.INVALID
    assert str(path) in refused.stderr
    assert nabla(*command, "--overwrite").exit_code == ExitCode.SUCCESS


def test_export_names_the_file_after_the_model(nabla, weights, tmp_path, monkeypatch):
    """Without a file, the model's id is its name."""
    monkeypatch.chdir(tmp_path)
    assert "digits-1f.safetensors" in nabla("model", "export", "digits-1f").stdout
    assert (tmp_path / "digits-1f.safetensors").read_bytes() == weights


def test_a_format_that_does_not_exist_is_refused_with_those_that_do(nabla, service, weights, tmp_path):
    """Safetensors under the name of another format would be a trap; nothing is fetched or written."""
    refused = nabla("model", "export", "digits-1f", str(tmp_path / "m.onnx"))
    assert refused.exit_code == ExitCode.INVALID
    assert "ONNX is not supported yet" in refused.stderr
    assert "m.safetensors" in refused.stderr
    assert service.calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def predicting(service):
    """The service predicts three rows and compares them."""
    rows = [models_pb2.Prediction(label=label, outputs=[0.25, 0.5]) for label in (1, 0, 1)]

    def handler(requests, _context):
        list(requests)
        yield models_pb2.PredictResponse(predictions=models_pb2.Predictions(rows=rows))
        yield models_pb2.PredictResponse(comparison=models_pb2.Comparison(rows=3, cost=0.5, accuracy=1.0))

    service.handlers["Predict"] = handler


def test_predict_shows_rows_labels_outputs_and_the_comparison(nabla, predicting, tmp_path):
    """--limit cuts what is shown, not what is compared."""
    file = tmp_path / "rows.csv"
    file.write_text("1,2\n")
    lines = nabla("model", "predict", "m", str(file), "--limit", "2").stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [["0", "1", "0.25", "0.5"], ["1", "0", "0.25", "0.5"]]
    assert lines[2] == "3 rows: cost 0.5, accuracy 100.00%"


def test_predict_for_programs_is_an_object_a_line(nabla, predicting, tmp_path):
    """Each line is JSON of its own, the comparison the last."""
    file = tmp_path / "rows.csv"
    file.write_text("1,2\n")
    objects = [json.loads(line) for line in nabla("model", "predict", "m", str(file), "-o", "json").stdout.splitlines()]
    assert [next(iter(each)) for each in objects] == ["prediction"] * 3 + ["comparison"]
    assert objects[1]["prediction"] == {"label": 0, "outputs": [0.25, 0.5]}


def test_delete_names_the_model(nabla, service):
    """The right one is deleted."""
    service.handlers["DeleteModel"] = lambda *_: models_pb2.DeleteModelResponse()
    assert nabla("model", "delete", "digits-1f").exit_code == ExitCode.SUCCESS
    assert service.requests("DeleteModel")[0].model_id == "digits-1f"


def test_a_damaged_model_is_shown_as_such(nabla, service):
    """Of which nothing but the id can be read."""
    damaged = models_pb2.Model(model_id="digits-2e", damage="model 'digits-2e' is damaged in the database")
    service.handlers["ListModels"] = lambda *_: models_pb2.ListModelsResponse(models=[damaged])
    assert nabla("model", "list").stdout.splitlines()[1].split() == ["digits-2e", "damaged"]
