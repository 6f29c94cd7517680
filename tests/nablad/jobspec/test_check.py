"""The one check of a job, with and without its data sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nablad.jobspec
from nablad.errors import Violation
from nablad.jobspec import JobDatasets, check, complete, parse
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.datasets_pb2 import Dataset
from nablad.v1.job_spec_pb2 import JobSpec

DIGITS = Dataset(name="digits", rows=100, features=4, classes=3)
TEXT = "data: {train: digits}\nmodel: {layers: [auto, 5, auto]}\n"


def fields(text: str, datasets: JobDatasets) -> list[str]:
    spec, unread = parse(TEXT + text)
    return [violation.field for violation in check(spec, datasets, unread).violations]


def test_every_public_name_is_there():
    """What the package says it exports exists, and in alphabetical order."""
    assert all(hasattr(nablad.jobspec, name) for name in nablad.jobspec.__all__)
    assert sorted(nablad.jobspec.__all__) == nablad.jobspec.__all__


@given(st.data())
def test_the_completed_spec_is_that_of_its_data_set(valid_specs, data):
    """A check completes as `complete` does, with the data set or without it, and does not change the spec."""
    spec, train = data.draw(valid_specs), data.draw(st.sampled_from([None, DIGITS]))
    before = JobSpec.FromString(spec.SerializeToString())
    assert check(spec, JobDatasets(train)).spec == complete(spec, train)
    assert spec == before


@given(st.data())
def test_a_data_set_takes_no_violation_back(any_specs, data):
    """What is wrong without the data set is wrong with it, so a client may refuse a spec that it knows to be wrong."""
    spec = data.draw(any_specs)
    alone = {violation.field for violation in check(spec).violations}
    assert alone <= {violation.field for violation in check(spec, JobDatasets(DIGITS)).violations}


@pytest.mark.parametrize(
    ("text", "alone", "with_data"),
    [
        ("", [], []),
        ("cost: {inner: {layer: 2, nodes: [0, 7], term: balance, weight: 1}}", [], ["cost.inner[0].nodes"]),
        ("distribution: {micro_batches: 101}", ["distribution.micro_batches"], ["distribution.micro_batches"]),
        (
            "training: {epochs: 0, batch_size: 999}\ndistribution: {micro_batches: 101}",
            ["training.epochs"],
            ["training.epochs", "distribution.micro_batches"],
        ),
    ],
)
def test_rules_see_what_the_data_set_fixes(text, alone, with_data):
    """Rules between fields are checked again with the layers of the data set, and the data set's own rules."""
    assert fields(text, JobDatasets()) == alone
    assert fields(text, JobDatasets(DIGITS)) == with_data


def test_what_could_not_be_read_is_part_of_the_answer():
    """Of a field that could not be read, and of rules that read it, nothing else is reported."""
    text = "training: {batch_size: many, epochs: 0}\ndistribution: {micro_batches: 200}"
    assert fields(text, JobDatasets()) == ["training.epochs", "training.batch_size"]


def test_a_violation_names_a_field_that_was_given():
    """One wrong activation for all layers is one violation, though completing writes it out for each of them."""
    spec, _ = parse("data: {train: digits}\nmodel: {layers: [4, 5, 5, 5, 3]}")
    spec.model.activation.append(99)
    assert check(spec, JobDatasets(DIGITS)).violations == [
        Violation(
            "model.activation[0]", f"got 99; allowed: {', '.join(nablad.jobspec.names(v1.Activation.DESCRIPTOR))}"
        )
    ]
