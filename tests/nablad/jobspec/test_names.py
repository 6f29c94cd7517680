"""Names of enum values."""

import pytest

from nablad.jobspec import name_of, names, value_of
from nablad.v1 import job_spec_pb2 as v1

ENUMS = list(v1.DESCRIPTOR.enum_types_by_name.values())


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.name)
def test_every_value_has_one_name_that_leads_back(enum):
    """value_of undoes name_of, for every value that a job file may name."""
    known = [value.number for value in enum.values if value.number]
    assert sorted(value_of(enum, name_of(enum, number)) for number in known) == known
    assert names(enum) == sorted(name_of(enum, number) for number in known)


def test_the_prefix_is_the_enums():
    """Only the part that tells values apart is left, also where the enum's name has capitals inside."""
    assert name_of(v1.Activation.DESCRIPTOR, v1.ACTIVATION_LEAKY_RELU) == "leaky_relu"
    assert name_of(v1.DType.DESCRIPTOR, v1.D_TYPE_FLOAT64) == "float64"


def test_an_unknown_number_stands_for_itself():
    """A value from a newer peer can be shown."""
    assert name_of(v1.Activation.DESCRIPTOR, 77) == "77"


@pytest.mark.parametrize("name", ["unspecified", "ACTIVATION_SIGMOID", "", "77", "x" * 10_000])
def test_other_names_are_refused(name):
    """Neither the unspecified value nor the contract's spelling is a name."""
    with pytest.raises(ValueError, match="allowed: elu, gelu, identity"):
        value_of(v1.Activation.DESCRIPTOR, name)


@pytest.mark.parametrize(
    ("name", "meant"), [("sigmiod", "sigmoid"), ("Leaky-ReLU", "leaky_relu"), ("SOFTMAX", "softmax")]
)
def test_a_misspelt_name_is_recognised(name, meant):
    """The message says which name was probably meant."""
    with pytest.raises(ValueError, match=f'did you mean "{meant}"?'):
        value_of(v1.Activation.DESCRIPTOR, name)
