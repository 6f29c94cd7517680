"""`nabla dataset`."""

import json

import grpc
import pytest

from nablad.cli.exits import ExitCode
from nablad.v1 import datasets_pb2

DIGITS = datasets_pb2.Dataset(
    name="digits", rows=1437, features=64, classes=10, feature_dtype="uint8", size_bytes=93405
)
PRICES = datasets_pb2.Dataset(name="prices", rows=5, features=2, target_columns=1, size_bytes=7)


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "digits.csv"
    path.write_text("a,b,y\n1,2,0\n")
    return path


def test_add_sends_the_file_and_says_what_became_of_it(nabla, service, csv_file):
    """The options reach the service, the file's bytes too, and the answer is a sentence or JSON."""

    def keep(requests, _context):
        header, *chunks = requests
        assert b"".join(request.chunk for request in chunks) == csv_file.read_bytes()
        files = header.header.data_files
        assert (header.header.name, files.target_column, files.classes) == ("digits", "y", 10)
        assert files.target_kind == datasets_pb2.TARGET_KIND_LABELS
        return datasets_pb2.AddDatasetResponse(dataset=DIGITS)

    service.handlers["AddDataset"] = keep
    command = ["dataset", "add", "digits", str(csv_file), "--target", "y", "--targets", "labels", "--classes", "10"]
    assert nabla(*command).stdout == "Data set digits: 1,437 rows, 64 features, 10 classes.\n"
    assert json.loads(nabla(*command, "-o", "json").stdout)["rows"] == "1437"


def test_bad_data_is_the_service_s_sentence(nabla, service, refuse, csv_file):
    """A file that the service does not like ends with its sentence and the code for invalid data."""
    service.handlers["AddDataset"] = refuse(grpc.StatusCode.INVALID_ARGUMENT, "row 2 of digits.csv: 'x' is no number")
    result = nabla("dataset", "add", "digits", str(csv_file))
    assert (result.exit_code, result.stderr) == (ExitCode.INVALID, "Error: row 2 of digits.csv: 'x' is no number\n")


def test_a_missing_file_is_named_before_anything_is_sent(nabla, service):
    """A misspelt path costs no upload."""
    result = nabla("dataset", "add", "digits", "missing.csv")
    assert result.exit_code == ExitCode.INVALID
    assert "missing.csv" in result.stderr
    assert service.calls == []


def test_list_tells_labels_from_values(nabla, service):
    """The table says what the targets are."""
    service.handlers["ListDatasets"] = lambda *_: datasets_pb2.ListDatasetsResponse(datasets=[DIGITS, PRICES])
    lines = nabla("dataset", "list").stdout.splitlines()
    assert lines[1].split() == ["digits", "1,437", "64", "10", "classes", "uint8", "91.2", "KiB"]
    assert lines[2].split() == ["prices", "5", "2", "1", "value", "7", "B"]
    names = [each["name"] for each in json.loads(nabla("dataset", "list", "-o", "json").stdout)]
    assert names == ["digits", "prices"]


def test_delete_names_the_data_set(nabla, service):
    """The right one is deleted."""
    service.handlers["DeleteDataset"] = lambda *_: datasets_pb2.DeleteDatasetResponse()
    assert nabla("dataset", "delete", "digits").exit_code == ExitCode.SUCCESS
    assert service.requests("DeleteDataset")[0].name == "digits"


def test_a_damaged_data_set_is_shown_as_such(nabla, service):
    """Of which nothing but the name can be read."""
    damaged = datasets_pb2.Dataset(name="digits", damage="data set 'digits' is damaged in the database")
    service.handlers["ListDatasets"] = lambda *_: datasets_pb2.ListDatasetsResponse(datasets=[damaged])
    assert nabla("dataset", "list").stdout.splitlines()[1].split() == ["digits", "damaged"]
