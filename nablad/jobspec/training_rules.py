"""The rules on where a training begins and when it stops."""

from collections.abc import Iterator

from nablad.jobspec.findings import Finding, Rule
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["TRAINING_RULES"]

_STOPPING = "training.stopping"
_WARM_START = "training.warm_start"
# An improvement alone has no effect either, but is answered where it stands.
_WITH_AN_EFFECT = frozenset({"target_cost", "target_accuracy", "patience", "minimum_improvement"})


def stopping_has_an_effect(spec: JobSpec) -> Iterator[Finding]:
    """What is said about stopping stops the training, or chooses the weights that are kept."""
    stopping = spec.training.stopping
    given = {field.name for field, _ in stopping.ListFields()}
    if spec.training.HasField("stopping") and not stopping.keep_best and given.isdisjoint(_WITH_AN_EFFECT):
        message = (
            "there is nothing in it that stops the training or keeps its best weights; give target_cost, "
            "target_accuracy, patience or keep_best, or leave it out"
        )
        yield Finding(_STOPPING, message)


def best_epoch_is_validated(spec: JobSpec) -> Iterator[Finding]:
    """Which epoch was the best one is decided on validation rows."""
    stopping = spec.training.stopping
    if spec.data.validation or not (stopping.HasField("patience") or stopping.keep_best):
        return
    # With patience, that the best weights are kept is not what the author said but what follows.
    name, got = ("patience", str(stopping.patience)) if stopping.HasField("patience") else ("keep_best", "true")
    message = f"got {got}, but there is no validation cost to look at; give data.validation, or leave {name} out"
    yield Finding(f"{_STOPPING}.{name}", message, ("data.validation",))


def warm_start_has_one_source(spec: JobSpec) -> Iterator[Finding]:
    """The first weights come from one place."""
    if not spec.training.HasField("warm_start"):
        return
    model, job = spec.training.warm_start.model, spec.training.warm_start.checkpoint_of
    if model and job:
        yield Finding(_WARM_START, "got both model and checkpoint_of; the first weights come from one: give only that")
    elif not model and not job:
        message = "got neither model nor checkpoint_of; give one of them, or leave it out to draw the first weights"
        yield Finding(_WARM_START, message)


TRAINING_RULES: tuple[Rule, ...] = (stopping_has_an_effect, best_epoch_is_validated, warm_start_has_one_source)
