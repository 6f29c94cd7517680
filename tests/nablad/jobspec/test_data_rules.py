"""The rules between a spec and its data sets."""

import pytest

from nablad.jobspec import JobDatasets, check, parse
from nablad.v1.datasets_pb2 import Dataset

LABELS = Dataset(name="digits", rows=100, features=4, classes=3)
PAIR = Dataset(name="pair", rows=100, features=4, classes=2)
VALUES = Dataset(name="prices", rows=100, features=4, target_columns=2)


def said(text: str, train: Dataset, validation: Dataset | None = None) -> list[str]:
    spec, found = parse("data: {train: d}\n" + text)
    assert found == []
    return [str(violation) for violation in check(spec, JobDatasets(train, validation)).violations]


@pytest.mark.parametrize(
    ("text", "train", "message"),
    [
        (
            "model: {layers: [5, 3]}",
            LABELS,
            "model.layers[0]: got 5; allowed: 4, the features of data set digits, or auto",
        ),
        (
            "model: {layers: [4, 2]}",
            LABELS,
            "model.layers[1]: got 2; allowed: 3, the classes of data set digits, or auto",
        ),
        (
            "model: {layers: [4, 3]}",
            PAIR,
            "model.layers[1]: got 3; allowed: 1 or 2, the classes of data set pair, or auto",
        ),
        (
            "model: {layers: [4, 9, 1]}",
            VALUES,
            "model.layers[2]: got 1; allowed: 2, the target columns of data set prices, or auto",
        ),
        (
            "model: {layers: [4, 2]}\ncost: {function: categorical_cross_entropy}",
            VALUES,
            "cost.function: got categorical_cross_entropy, which is for class labels, but data set prices has values "
            "as its targets; use mean_squared_error, or add the data set with target_kind labels",
        ),
        (
            "model: {layers: [4, 3]}\ntraining: {batch_size: 900}\ndistribution: {micro_batches: 101}",
            LABELS,
            "distribution.micro_batches: got 101; allowed: at most 100, the rows of data set digits",
        ),
        (
            "model: {layers: [4, 2]}\ntraining: {stopping: {target_accuracy: 0.9}}",
            VALUES,
            "training.stopping.target_accuracy: got 0.9, but there is an accuracy only for class labels, and data set "
            "prices has values as its targets; use target_cost",
        ),
    ],
)
def test_a_spec_that_does_not_fit_its_data_set_is_refused(text, train, message):
    """Each misfit is one violation that names what the data set has."""
    assert said(text, train) == [message]


@pytest.mark.parametrize(
    ("text", "train"),
    [
        ("model: {layers: [auto, auto]}", LABELS),
        ("model: {layers: [auto, 7, auto]}", VALUES),
        ("model: {layers: [4, 1]}", PAIR),
        ("model: {layers: [4, 2]}", PAIR),
        ("model: {layers: [4, 3]}\ntraining: {batch_size: 101}", LABELS),
        ("model: {layers: [4, 2]}\ncost: {function: log_loss}", VALUES),
        ("model: {layers: [4, 3]}\ncost: {function: mean_squared_error}", LABELS),
        ("model: {layers: [4, 3]}\ntraining: {stopping: {target_accuracy: 0.9}}", LABELS),
        ("model: {layers: [4, 2]}\ntraining: {stopping: {target_cost: 0.1}}", VALUES),
    ],
)
def test_a_spec_that_fits_its_data_set_is_not_refused(text, train):
    """One node tells two classes apart; a mini-batch may be larger than the data set."""
    assert said(text, train) == []


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (LABELS, Dataset(name="v", features=5, classes=3), "v has 5 features, but digits has 4"),
        (LABELS, Dataset(name="v", features=4, classes=4), "v has 4 classes, but digits has 3"),
        (
            LABELS,
            Dataset(name="v", features=4, target_columns=1),
            "v has values as its targets, but digits has class labels",
        ),
        (VALUES, Dataset(name="v", features=4, target_columns=1), "v has 1 target columns, but prices has 2"),
    ],
)
def test_a_validation_set_of_another_shape_is_refused(train, validation, message):
    """What was learnt from one data set can be held against the other only if they are of one shape."""
    assert said("model: {layers: [auto, auto]}", train, validation) == [f"data.validation: {message}"]


def test_a_validation_set_may_lack_classes():
    """That the validation rows show only some of the classes is no mistake."""
    fewer = Dataset(name="v", rows=1, features=4, classes=2)
    assert said("model: {layers: [auto, auto]}", LABELS, fewer) == []
