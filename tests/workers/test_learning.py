"""The table of the metrics of learning, and what has to agree with it."""

import pytest

from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS, LearningMetric
from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import metrics_pb2 as metrics_pb
from nablad.v1 import models_pb2 as models_pb
from workers.learning import metrics_of, read_sums, sums_message
from workers.mathematics.sums import SampleSums

SUMS = SampleSums(1.5, 10, 7)


def test_every_metric_has_a_field_and_a_formula() -> None:
    """Table and message have the same names in the same order, and sums a property for each."""
    assert [field.name for field in metrics_pb.Metrics.DESCRIPTOR.fields] == [each.name for each in LEARNING_METRICS]
    assert all(isinstance(getattr(SampleSums, metric.name), property) for metric in LEARNING_METRICS)


def test_all_that_carries_metrics_has_them_of_the_same_rows() -> None:
    """Under the same names."""
    for carrier in (jobs_pb.Progress, jobs_pb.HistoryPoint, models_pb.Model):
        fields = [
            field.name for field in carrier.DESCRIPTOR.fields if field.message_type is metrics_pb.Metrics.DESCRIPTOR
        ]
        assert fields == list(ROW_SETS)


@pytest.mark.parametrize("labelled", [True, False])
def test_metrics_follow_from_sums(labelled: bool) -> None:
    """All that apply to the targets, and no others."""
    metrics = metrics_of(SUMS, labelled=labelled)
    assert {each.name: each.value(metrics) for each in LEARNING_METRICS} == {
        each.name: getattr(SUMS, each.name) if labelled or not each.only_for_labels else None
        for each in LEARNING_METRICS
    }


def test_there_are_no_metrics_of_no_samples() -> None:
    """The message is there, and empty."""
    assert metrics_of(SampleSums(), labelled=True) == metrics_pb.Metrics()


def test_sums_come_back_from_their_message() -> None:
    """All of them, with every bit."""
    sums = SampleSums(1 / 3, 2**64 - 1, 2**63)
    assert read_sums(metrics_pb.Sums.FromString(sums_message(sums).SerializeToString())) == sums


def test_a_target_is_reached_from_the_side_that_is_better() -> None:
    """And by equality."""
    cost, share = LearningMetric("cost", "", lower_is_better=True), LearningMetric("share", "")
    assert [cost.reaches(value, 0.5) for value in (0.4, 0.5, 0.6)] == [True, True, False]
    assert [share.reaches(value, 0.5) for value in (0.4, 0.5, 0.6)] == [False, True, True]
