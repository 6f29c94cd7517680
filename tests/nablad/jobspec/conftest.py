"""Job files, and strategies that draw specs."""

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from nablad.jobspec import ALLOWED_OUTPUTS
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.job_spec_pb2 import (
    CostSpec,
    DistributionSpec,
    InnerTerm,
    JobSpec,
    ModelSpec,
    OptimizerSpec,
    StoppingSpec,
    WarmStartSpec,
)

JOB_FILE = """
name: mnist-paper
data: {train: mnist-train, validation: mnist-test, scaling: unit}   # registered names
model:
  layers: [784, 100, 50, 10]        # nodes of L(0) … L(E)
  activation: sigmoid               # or one per layer of weights
  output_activation: sigmoid
  bias: true
  initialisation: glorot_uniform
  dtype: float32
cost:
  function: log_loss
  inner:                            # Supposition 1; empty by default
    - {layer: 1, nodes: [0, 1, 2, 3], term: sparsity, target: 0.05, weight: 0.001}
training:
  epochs: 30
  batch_size: 100
  learning_rate: 1.0
  optimizer: {name: sgd}
  seed: 7
  stopping: {target_accuracy: 0.98, patience: 5, minimum_improvement: 0.001}
  warm_start: {checkpoint_of: mnist-first-1f2e3d}
distribution: {workers: 2, cpus_per_worker: 1, micro_batches: 2, policy: sync, transport: inline}
priority: -5
limits: {attempts: 5, wall_time_seconds: 3600}
checkpoints: {every_epochs: 1, every_seconds: 60}
"""

INNER_ACTIVATIONS = sorted(set(v1.Activation.values()) - {v1.ACTIVATION_UNSPECIFIED, v1.ACTIVATION_SOFTMAX})

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
}


@pytest.fixture(scope="session")
def job_file() -> str:
    return JOB_FILE


@pytest.fixture(scope="session")
def any_specs() -> st.SearchStrategy[JobSpec]:
    """Specs that a job file can write down, with anything in their fields."""
    return messages(JobSpec)


@pytest.fixture(scope="session")
def valid_specs() -> st.SearchStrategy[JobSpec]:
    """Specs that break no rule, whatever their data set is."""
    return _valid_specs()


def messages(kind: type[Message]) -> st.SearchStrategy[Any]:
    optional = {field.name: _values(field) for field in kind.DESCRIPTOR.fields}
    return st.fixed_dictionaries({}, optional=optional).map(lambda fields: kind(**fields))


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        one = messages(getattr(v1, field.message_type.name))
    elif field.enum_type is not None:
        one = st.sampled_from(field.enum_type.values[1:]).map(lambda value: value.number)
    elif field.cpp_type in INTEGERS:
        one = INTEGERS[field.cpp_type]
    else:
        one = {
            FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
            FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
            FieldDescriptor.CPPTYPE_STRING: st.text(max_size=8),
        }[field.cpp_type]
    return st.lists(one, max_size=3) if field.is_repeated else one


@st.composite
def _valid_specs(draw: st.DrawFn) -> JobSpec:
    last_layer = draw(st.integers(1, 4))
    layers = [draw(st.integers(2, 6)) for _ in range(last_layer + 1)]
    cost, output = _cost_and_output(draw)
    activation = _activation(draw, last_layer, output_is_given=bool(output))
    batch_size = draw(st.integers(1, 50))
    spec = JobSpec(
        model=ModelSpec(
            layers=layers,
            activation=activation,
            output_activation=output,
            bias=draw(st.none() | st.booleans()),
            initialisation=draw(st.sampled_from(v1.Initialisation.values())),
            initialisation_scale=draw(st.none() | st.floats(0.1, 10)),
        ),
        cost=CostSpec(function=cost, inner=draw(st.lists(_inner_terms(layers), max_size=2))),
        distribution=DistributionSpec(
            workers=draw(st.none() | st.integers(1, 60)),
            micro_batches=draw(st.none() | st.integers(1, batch_size)),
            transport=draw(st.sampled_from(v1.Transport.values())),
        ),
        priority=draw(st.none() | st.integers(-1000, 1000)),
        limits=draw(st.none() | st.sampled_from(LIMITS)),
        checkpoints=draw(st.none() | st.sampled_from(CHECKPOINTS)),
    )
    spec.data.train = "train"
    _add_stopping_and_warm_start(draw, spec)
    spec.training.batch_size = batch_size
    spec.training.optimizer.CopyFrom(draw(st.sampled_from(OPTIMIZERS)))
    if cost == v1.COST_FUNCTION_HUBER and draw(st.booleans()):
        spec.cost.huber_delta = 2.0
    if draw(st.booleans()):
        spec.model.layers[0] = 0
    return spec


def _add_stopping_and_warm_start(draw: st.DrawFn, spec: JobSpec) -> None:
    spec.data.validation = draw(st.sampled_from(["", "validation"]))
    stopping = draw(st.none() | st.sampled_from(STOPPING if spec.data.validation else STOPPING_WITHOUT_VALIDATION))
    warm_start = draw(st.none() | st.sampled_from([WarmStartSpec(model="a"), WarmStartSpec(checkpoint_of="a")]))
    spec.training.MergeFrom(v1.TrainingSpec(stopping=stopping, warm_start=warm_start))


LIMITS = [v1.LimitsSpec(), v1.LimitsSpec(attempts=1), v1.LimitsSpec(wall_time_seconds=0.5)]
CHECKPOINTS = [v1.CheckpointsSpec(), v1.CheckpointsSpec(every_epochs=2), v1.CheckpointsSpec(every_seconds=9)]
STOPPING_WITHOUT_VALIDATION = [StoppingSpec(target_cost=0.1), StoppingSpec(target_accuracy=1, keep_best=False)]
STOPPING = [
    *STOPPING_WITHOUT_VALIDATION,
    StoppingSpec(patience=3),
    StoppingSpec(patience=3, minimum_improvement=0.1, keep_best=False),
    StoppingSpec(keep_best=True),
    StoppingSpec(target_cost=0.1, keep_best=True, minimum_improvement=0),
]

OPTIMIZERS = [
    OptimizerSpec(),
    OptimizerSpec(name=v1.OPTIMIZER_SGD),
    OptimizerSpec(name=v1.OPTIMIZER_NESTEROV, momentum=0.0),
    OptimizerSpec(name=v1.OPTIMIZER_ADAM, beta2=0.9),
]


def _cost_and_output(draw: st.DrawFn) -> tuple[Any, Any]:
    cost = draw(st.sampled_from(v1.CostFunction.values()))
    allowed = ALLOWED_OUTPUTS.get(cost, frozenset(v1.Activation.values()))
    return cost, draw(st.sampled_from([v1.ACTIVATION_UNSPECIFIED, *sorted(allowed)]))


def _activation(draw: st.DrawFn, last_layer: int, *, output_is_given: bool) -> list[int]:
    """None, one for all, or one for each; a single one of a network without inner layers would be the output's."""
    lengths = {0, last_layer - 1} | ({1} if last_layer > 1 or output_is_given else set())
    length = draw(st.sampled_from(sorted(lengths)))
    return draw(st.lists(st.sampled_from(INNER_ACTIVATIONS), min_size=length, max_size=length))


@st.composite
def _inner_terms(draw: st.DrawFn, layers: list[int]) -> InnerTerm:
    layer = draw(st.integers(1, len(layers) - 1))
    nodes = draw(st.none() | st.sets(st.integers(0, layers[layer] - 1), min_size=2))
    term = draw(st.sampled_from([v1.TERM_SQUARED_ACTIVITY, v1.TERM_ABSOLUTE_ACTIVITY, v1.TERM_BALANCE]))
    return InnerTerm(layer=layer, nodes=sorted(nodes or ()), term=term, weight=draw(st.floats(0.001, 10)))
