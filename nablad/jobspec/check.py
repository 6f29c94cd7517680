"""Checking a job: one pass that completes its spec and finds everything that is wrong with it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nablad.errors import Violation
from nablad.jobspec.data_rules import data_violations
from nablad.jobspec.defaults import complete
from nablad.jobspec.fields import constraint_violations, is_too_long, walk
from nablad.jobspec.rules import RULES
from nablad.jobspec.violations import RuleViolation, is_touched, merge, sort
from nablad.v1.datasets_pb2 import Dataset
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["Checked", "JobDatasets", "check"]


class JobDatasets(NamedTuple):
    """The data sets of a job, as far as they are known: the service knows them, a client does not.

    Attributes:
        train: The data set that `DataSpec.train` names; None while it is not known.
        validation: The data set that `DataSpec.validation` names; None while it is not known, or if there is none.
    """

    train: Dataset | None = None
    validation: Dataset | None = None


_UNKNOWN = JobDatasets()


class Checked(NamedTuple):
    """A checked job.

    Attributes:
        spec: The completed spec, as `complete` returns it for the train data set.
        violations: Everything that is wrong with it, in the order of the contract's fields; empty if it may run.
    """

    spec: JobSpec
    violations: list[Violation]


def check(spec: JobSpec, datasets: JobDatasets = _UNKNOWN, unread: Sequence[Violation] = ()) -> Checked:
    """Completes a spec and checks it: constraints of the fields, rules between fields, rules of the data sets.

    Constraints are checked in the spec as given, so that a violation names a field that the author wrote. Rules are
    checked in the completed spec. A field that breaks a constraint is reported once: rules that read it are skipped,
    because it is not known what they should read.

    Args:
        spec: The spec as its author wrote it, or a completed one; it is not changed.
        datasets: Its data sets. Without them, the rules of the data sets are not checked.
        unread: What `parse` could not read of the job file. It is part of the answer, and is treated as broken
            constraints are.
    """
    completed = complete(spec, datasets.train)
    constraints = (each for each in constraint_violations(spec) if not is_touched(each.field, unread))
    certain = [*unread, *constraints]
    between_fields = [
        Violation(broken.field, broken.message)
        for broken in _broken_rules(spec, completed)
        if not any(is_touched(path, certain) for path in (broken.field, *broken.reads))
    ]
    found = sort([*certain, *between_fields])
    if datasets.train is not None:
        found = merge(found, data_violations(completed, datasets.train, datasets.validation))
    return Checked(completed, found)


def _broken_rules(spec: JobSpec, completed: JobSpec) -> Iterator[RuleViolation]:
    """Yields nothing for a spec with a list that is too long, because a rule might take very long over it."""
    if any(is_too_long(message, field) for message, field, _ in walk(spec)):
        return
    for rule in RULES:
        yield from rule(completed)
