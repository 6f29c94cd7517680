"""`nabla job history`."""

import csv
import io
import json
import re

import pytest

from nablad.v1 import jobs_pb2
from nablad.v1.metrics_pb2 import Metrics

THIRD = 1 / 3  # has more digits than any table shows


def _epoch(number):
    point = jobs_pb2.HistoryPoint(
        attempt=1,
        epoch=number,
        step=15 * number,
        training=Metrics(cost=THIRD / number, accuracy=0.5),
        learning_rate=0.1,
        samples_per_second=1234.5,
        weights_sha256=f"{number:064x}",
    )
    point.time.FromSeconds(1_700_000_000 + number)
    return point


STEP = jobs_pb2.HistoryPoint(
    attempt=1, epoch=1, step=7, training=Metrics(cost=0), learning_rate=0.1, gradient_norm=THIRD
)


@pytest.fixture
def remembering(service):
    """The service remembers two epochs, on a page each, and one step."""

    def page(request, _context):
        if request.kind == jobs_pb2.HISTORY_KIND_STEPS:
            return jobs_pb2.ListJobHistoryResponse(points=[STEP])
        last = bool(request.page_token)
        return jobs_pb2.ListJobHistoryResponse(points=[_epoch(1 + last)], next_page_token="" if last else "next")

    service.handlers["ListJobHistory"] = page
    return service


def test_a_table_of_epochs(nabla, remembering):
    """People see a line for each epoch, with costs in four digits and the beginning of the digest."""
    heading, *lines = nabla("job", "history", "a").stdout.splitlines()
    columns = re.split("  +", heading.strip())
    assert columns[:7] == [
        "EPOCH", "STEP", "TIME", "TRAINING COST", "VALIDATION COST", "TRAINING ACCURACY", "VALIDATION ACCURACY",
    ]  # fmt: skip
    assert columns[-2:] == ["SAMPLES/S", "WEIGHTS"]
    first = lines[0].split()
    assert [*first[:2], *first[4:]] == ["1", "15", "0.3333", "50.00%", "1,234", "000000000000"]
    assert len(lines) == 2


def test_a_table_of_steps(nabla, remembering):
    """--steps asks for steps and shows what is known of them."""
    heading, line = nabla("job", "history", "a", "--steps").stdout.splitlines()
    assert "TRAINING COST" in heading
    assert "TRAINING ACCURACY" in heading
    assert line.split() == ["7", "1", "0", "0.1", "0.3333"]
    (request,) = remembering.requests("ListJobHistory")
    assert (request.job_id, request.kind) == ("a", jobs_pb2.HISTORY_KIND_STEPS)


def test_csv_keeps_all_columns_and_all_digits(nabla, remembering):
    """Every field of the contract is a column, metrics each have one, and numbers read back as the same numbers.

    What is not known is empty.
    """
    rows = list(csv.DictReader(io.StringIO(nabla("job", "history", "a", "-o", "csv").stdout)))
    metrics = [f"_{field.name}" for field in Metrics.DESCRIPTOR.fields]
    assert list(rows[0]) == [
        f"{field.name}{metric}"
        for field in jobs_pb2.HistoryPoint.DESCRIPTOR.fields
        for metric in (metrics if field.message_type is Metrics.DESCRIPTOR else [""])
    ]
    assert [float(row["training_cost"]) for row in rows] == [THIRD, THIRD / 2]
    assert (rows[0]["time"], rows[0]["validation_cost"]) == ("2023-11-14T22:13:21Z", "")
    assert [row["weights_sha256"] for row in rows] == [f"{number:064x}" for number in (1, 2)]


def test_csv_tells_a_cost_of_0_from_what_is_not_known(nabla, remembering):
    """A step has no samples per second, but it may have a cost of 0."""
    (row,) = csv.DictReader(io.StringIO(nabla("job", "history", "a", "--steps", "-o", "csv").stdout))
    assert (float(row["training_cost"]), float(row["gradient_norm"])) == (0, THIRD)
    assert (row["samples_per_second"], row["weights_sha256"], row["training_accuracy"], row["time"]) == ("",) * 4


def test_json_is_an_array_of_all_pages(nabla, remembering):
    """Programs get every point with all of its digits."""
    points = json.loads(nabla("job", "history", "a", "-o", "json").stdout)
    assert [point["training"]["cost"] for point in points] == [THIRD, THIRD / 2]


def test_a_job_without_history_is_an_empty_table_of_any_form(nabla, service):
    """Where there is nothing yet, there are the headings, and an empty array."""
    service.handlers["ListJobHistory"] = lambda *_: jobs_pb2.ListJobHistoryResponse()
    assert nabla("job", "history", "a").stdout.startswith("EPOCH")
    assert nabla("job", "history", "a", "-o", "csv").stdout.startswith("time,attempt,epoch,")
    assert json.loads(nabla("job", "history", "a", "-o", "json").stdout) == []
