"""What holds for every text and every spec."""

import json
from contextlib import suppress

import yaml
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from nablad.errors import Violation
from nablad.jobspec import check, complete, parse, to_yaml
from nablad.jobspec.violations import order, overlap
from nablad.v1.job_spec_pb2 import JobSpec

KEYS = [
    "data",
    "train",
    "model",
    "layers",
    "activation",
    "cost",
    "inner",
    "training",
    "epsilon",
    "learning_rate",
    "nodes",
]

json_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
yaml_scalars = json_scalars | st.dates() | st.binary(max_size=3)


def trees(scalars: st.SearchStrategy[object], keys: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | keys, inner, max_size=4),
        max_leaves=20,
    )


yaml_like = st.text(alphabet=st.sampled_from(":-[]{},&*!|>'\"%@`#?\\ \n\tUuxab01.~=<"), max_size=40)


def read(text: str) -> None:
    """Reads a text to the end: into a spec, its violations and its completed form."""
    spec, found = parse(text)
    everything = check(spec, unread=found).violations
    assert isinstance(spec, JobSpec)
    assert all(isinstance(violation, Violation) and violation.message for violation in everything)
    assert set(found) <= set(everything)
    complete(spec)


@given(trees(yaml_scalars, st.text(max_size=5) | st.integers()))
def test_no_yaml_raises(tree):
    """Whatever a YAML document holds, it is answered with violations."""
    read(yaml.safe_dump(tree))
    read(yaml.safe_dump({"model": tree, "cost": {"inner": tree}, "training": {"seed": tree, "optimizer": tree}}))


@given(trees(json_scalars, st.text(max_size=5)))
def test_no_json_raises(tree):
    """Whatever a JSON value holds, it is answered with violations."""
    read(json.dumps({"model": tree}))


@given(st.text() | yaml_like)
def test_no_text_raises(text):
    """Whatever a text holds, it is answered with violations."""
    read(text)
    read("{" + text)


@given(st.data())
def test_no_damaged_job_file_raises(job_file, data):
    """A job file that something was cut out of or put into is answered with violations."""
    start = data.draw(st.integers(0, len(job_file)))
    end = data.draw(st.integers(start, min(start + 20, len(job_file))))
    read(job_file[:start] + data.draw(yaml_like) + job_file[end:])


@given(st.data())
def test_a_written_spec_is_read_as_itself(any_specs, data):
    """What to_yaml writes is what parse reads: the same spec, for anything that the fields can hold."""
    spec = data.draw(any_specs)
    assert parse(to_yaml(spec)) == (spec, [])


@given(st.data())
def test_a_completed_spec_is_read_as_itself(valid_specs, data):
    """A completed spec can be written down and submitted again."""
    spec = complete(data.draw(valid_specs))
    assert parse(to_yaml(spec)) == (spec, [])


@given(st.data())
def test_no_spec_raises(any_specs, data):
    """Whatever a message holds, it is answered with violations, and completing it again changes nothing."""
    spec = data.draw(any_specs)
    found = check(spec).violations
    assert found == sorted(found, key=lambda violation: order(violation.field))
    assert complete(complete(spec)) == complete(spec)


@given(st.binary(max_size=200))
def test_no_message_from_the_wire_raises(content):
    """Unknown enum numbers, NaN and empty messages inside are answered with violations."""
    spec = JobSpec()
    with suppress(DecodeError):
        spec.ParseFromString(content)
    check(spec)


@given(st.text(), st.text())
def test_paths_of_any_keys_can_be_compared(path, other):
    """Every path overlaps itself and the whole, overlapping is symmetric, and every path has its place in the order."""
    assert overlap(path, path)
    assert overlap(path, "")
    assert overlap(path, other) == overlap(other, path)
    assert order(path) is not None
