"""What is filled in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nablad.jobspec import check, complete, parse, to_yaml
from nablad.jobspec.fields import is_given, walk
from nablad.v1 import job_spec_pb2 as v1
from nablad.v1.datasets_pb2 import Dataset
from nablad.v1.job_spec_pb2 import JobSpec

LABELS = Dataset(name="d", rows=100, features=4, classes=3)
VALUES = Dataset(name="d", rows=100, features=4, target_columns=2)

WRITTEN_OUT = {"model.layers", "model.activation"}

datasets = st.builds(
    Dataset, rows=st.integers(1, 100), features=st.integers(1, 9), classes=st.integers(2, 9)
) | st.builds(Dataset, rows=st.integers(1, 100), features=st.integers(1, 9), target_columns=st.integers(1, 9))


def spec_of(text: str) -> JobSpec:
    spec, found = parse("data: {train: d}\n" + text)
    assert check(spec, unread=found).violations == []
    return spec


@given(st.data())
def test_completing_twice_changes_nothing(valid_specs, data):
    """A completed spec is complete, with and without its data set."""
    spec, train = data.draw(valid_specs), data.draw(st.none() | datasets)
    completed = complete(spec, train)
    assert complete(completed, train) == completed
    if train is not None:
        assert complete(completed) == completed


@given(st.data())
def test_completing_in_two_steps_gives_the_same(valid_specs, data):
    """What is filled in before the data set is known stays right."""
    spec, train = data.draw(valid_specs), data.draw(datasets.filter(lambda train: train.rows >= 60))
    assert complete(complete(spec), train) == complete(spec, train)


@given(st.data())
def test_a_valid_spec_is_completed_to_a_valid_one(valid_specs, data):
    """Nothing that is filled in breaks a rule."""
    spec, train = data.draw(valid_specs), data.draw(st.none() | datasets)
    assert check(spec).violations == []
    assert check(complete(spec, train)).violations == []


@given(st.data())
def test_what_was_given_stays(valid_specs, data):
    """Completing adds fields and changes none, and never its input."""
    spec, train = data.draw(valid_specs), data.draw(datasets)
    before = JobSpec.FromString(spec.SerializeToString())
    completed = complete(spec, train)
    assert spec == before
    after = {path: getattr(message, field.name) for message, field, path in walk(completed)}
    for message, field, path in walk(spec):
        if field.message_type is None and is_given(message, field) and path not in WRITTEN_OUT:
            assert after[path] == getattr(message, field.name)


def test_the_shortest_spec_is_filled_in():
    """Everything but data and layers has a default that a practitioner would expect."""
    text = to_yaml(complete(spec_of("model: {layers: [auto, 8, 8, auto]}"), LABELS))
    expected = """
name: job
data: {train: d, scaling: none}
model:
  layers: [4, 8, 8, 3]
  activation: [relu, relu]
  output_activation: softmax
  bias: true
  initialisation: glorot_uniform
  initialisation_scale: 1.0
  dtype: float32
cost: {function: categorical_cross_entropy}
training: {epochs: 10, batch_size: 100, learning_rate: 0.1, optimizer: sgd, seed: 0}
distribution: {workers: 1, cpus_per_worker: 1, micro_batches: 2, transport: auto, policy: sync, step_core: auto}
priority: 0
limits: {attempts: 3}
checkpoints: {every_seconds: 30.0}
"""
    assert text == expected.lstrip()


def test_the_layers_of_a_data_set_of_values_are_filled_in():
    """Auto is the number of features, and of target columns."""
    assert list(complete(spec_of("model: {layers: [auto, 8, auto]}"), VALUES).model.layers) == [4, 8, 2]


@pytest.mark.parametrize(
    ("given_layers", "activation", "inner", "output"),
    [
        ("[4, 8, 8, 3]", "[]", [v1.ACTIVATION_RELU] * 2, v1.ACTIVATION_SOFTMAX),
        ("[4, 8, 8, 3]", "tanh", [v1.ACTIVATION_TANH] * 2, v1.ACTIVATION_SOFTMAX),
        ("[4, 8, 8, 3]", "[tanh, elu]", [v1.ACTIVATION_TANH, v1.ACTIVATION_ELU], v1.ACTIVATION_SOFTMAX),
        ("[4, 8, 8, 3]", "[tanh, elu, sigmoid]", [v1.ACTIVATION_TANH, v1.ACTIVATION_ELU], v1.ACTIVATION_SIGMOID),
        ("[4, 8, 3]", "tanh", [v1.ACTIVATION_TANH], v1.ACTIVATION_SOFTMAX),
        ("[4, 3]", "[]", [], v1.ACTIVATION_SOFTMAX),
        ("[4, 3]", "sigmoid", [], v1.ACTIVATION_SIGMOID),
    ],
)
def test_activations_are_written_out(given_layers, activation, inner, output):
    """There is one activation for each inner layer, and the output's in its own field."""
    model = complete(spec_of(f"model: {{layers: {given_layers}, activation: {activation}}}"), LABELS).model
    assert (list(model.activation), model.output_activation) == (inner, output)


@pytest.mark.parametrize(
    ("text", "train", "output", "cost"),
    [
        ("model: {layers: [4, 3]}", LABELS, "softmax", "categorical_cross_entropy"),
        ("model: {layers: [4, 1]}", LABELS, "sigmoid", "log_loss"),
        ("model: {layers: [4, 2]}", VALUES, "identity", "mean_squared_error"),
        ("model: {layers: [4, 1]}", VALUES, "identity", "mean_squared_error"),
        ("model: {layers: [4, 3], output_activation: sigmoid}", LABELS, "sigmoid", "log_loss"),
        ("model: {layers: [4, 3], output_activation: sigmoid}", VALUES, "sigmoid", "mean_squared_error"),
        ("model: {layers: [4, 3], output_activation: softmax}", None, "softmax", "categorical_cross_entropy"),
        ("model: {layers: [4, 3], output_activation: softplus}", None, "softplus", "poisson"),
        ("model: {layers: [4, 3], output_activation: tanh}", None, "tanh", "mean_squared_error"),
        ("cost: {function: log_loss}\nmodel: {layers: [4, 3]}", None, "sigmoid", "log_loss"),
        ("cost: {function: categorical_cross_entropy}\nmodel: {layers: [4, 3]}", None, "softmax", None),
        ("cost: {function: mean_squared_error}\nmodel: {layers: [4, 3]}", LABELS, "identity", None),
        ("cost: {function: mean_absolute_error}\nmodel: {layers: [4, 3]}", None, "identity", None),
        ("cost: {function: huber}\nmodel: {layers: [4, 3]}", None, "identity", None),
        ("cost: {function: poisson}\nmodel: {layers: [4, 3]}", None, "softplus", "poisson"),
    ],
)
def test_output_and_cost_are_chosen_for_each_other(text, train, output, cost):
    """What was given decides, then the targets."""
    spec = spec_of(text)
    completed = complete(spec, train)
    assert completed.model.output_activation == v1.Activation.Value(f"ACTIVATION_{output.upper()}")
    expected = spec.cost.function if cost is None else v1.CostFunction.Value(f"COST_FUNCTION_{cost.upper()}")
    assert completed.cost.function == expected


@pytest.mark.parametrize("output", ["", ", output_activation: sigmoid"])
def test_without_the_data_set_what_depends_on_it_is_left_out(output):
    """Nothing is guessed about targets and features that are not known."""
    completed = complete(spec_of(f"model: {{layers: [auto, 3, auto]{output}}}"))
    assert list(completed.model.layers) == [0, 3, 0]
    assert completed.cost.function == v1.COST_FUNCTION_UNSPECIFIED


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "own"),
    [
        ("sgd", 0.1, []),
        ("momentum", 0.01, ["momentum"]),
        ("nesterov", 0.01, ["momentum"]),
        ("adam", 0.001, ["beta1", "beta2", "eps"]),
    ],
)
def test_an_optimizer_gets_its_own_parameters_only(optimizer, learning_rate, own):
    """The learning rate follows the optimizer, and no parameter of another one appears."""
    training = complete(spec_of(f"model: {{layers: [4, 3]}}\ntraining: {{optimizer: {{name: {optimizer}}}}}")).training
    assert training.learning_rate == learning_rate
    assert [field.name for field, _ in training.optimizer.ListFields()] == ["name", *own]


@pytest.mark.parametrize(
    ("given_stopping", "filled_in"),
    [
        ("{target_cost: 0.5}", {"keep_best": False}),
        ("{patience: 5}", {"minimum_improvement": 0.0, "keep_best": True}),
        ("{patience: 5, keep_best: false}", {"minimum_improvement": 0.0}),
        ("{keep_best: true, minimum_improvement: 0.5}", {}),
    ],
)
def test_stopping_is_filled_in_where_it_is_given(given_stopping, filled_in):
    """The best weights are kept with patience; an improvement is only there for who looks for one."""
    text = f"model: {{layers: [4, 3]}}\ntraining: {{stopping: {given_stopping}}}"
    spec, _ = parse("data: {train: d, validation: v}\n" + text)
    completed = complete(spec)
    added = {field.name: value for field, value in completed.training.stopping.ListFields()}
    assert added == {field.name: value for field, value in spec.training.stopping.ListFields()} | filled_in


def test_a_patience_that_is_not_allowed_is_completed_all_the_same():
    """A zero that was given is not one that was left out: what follows from it is filled in at once."""
    spec = JobSpec(training=v1.TrainingSpec(stopping=v1.StoppingSpec(patience=0)))
    assert complete(spec).training.stopping.HasField("minimum_improvement")
    assert complete(complete(spec)) == complete(spec)


def test_what_was_not_said_about_stopping_and_warm_start_stays_unsaid():
    """A training that neither stops early nor starts warm shows nothing of it."""
    training = complete(spec_of("model: {layers: [4, 3]}")).training
    assert not training.HasField("stopping")
    assert not training.HasField("warm_start")


def test_checkpoints_by_epoch_come_on_top_of_those_by_time():
    """Whoever asks for checkpoints by epoch only adds some, and nothing is made up about epochs."""
    assert complete(
        spec_of("model: {layers: [4, 3]}\ncheckpoints: {every_epochs: 2}")
    ).checkpoints == v1.CheckpointsSpec(every_epochs=2, every_seconds=30)
    assert not complete(spec_of("model: {layers: [4, 3]}")).checkpoints.HasField("every_epochs")


@pytest.mark.parametrize(("initialisation", "scale"), [("he_normal", 1.0), ("uniform", 0.05), ("normal", 0.05)])
def test_the_scale_follows_the_initialisation(initialisation, scale):
    """A factor is 1, a width is small."""
    completed = complete(spec_of(f"model: {{layers: [4, 3], initialisation: {initialisation}}}"))
    assert completed.model.initialisation_scale == scale


def test_a_parameter_of_the_cost_is_filled_in_where_it_applies():
    """huber_delta is for huber, target is for sparsity."""
    term = "{layer: 1, term: %s, weight: 1}"
    inner = ", ".join(term % name for name in ("sparsity", "balance"))
    text = f"model: {{layers: [4, 3, 2], activation: sigmoid}}\ncost: {{function: huber, inner: [{inner}]}}"
    cost = complete(spec_of(text)).cost
    assert cost.huber_delta == 1.0
    assert [term.HasField("target") and term.target for term in cost.inner] == [0.05, False]


@pytest.mark.parametrize(
    ("batch_size", "rows", "micro_batches"),
    [
        *[(1, 99, 1), (63, 99, 1), (64, 99, 2), (100, 1000, 2), (500, 10_000, 2), (1023, 10_000, 2)],
        *[(1024, 10_000, 2), (10**7, 10**8, 2)],
        *[(500, 63, 1), (500, 100, 2), (500, 0, 1), (2048, 60, 1)],
    ],
)
def test_a_mini_batch_is_cut_by_its_rows(batch_size, rows, micro_batches):
    """In two where that leaves both enough rows; the rows of a smaller data set count."""
    text = f"model: {{layers: [4, 3]}}\ntraining: {{batch_size: {batch_size}}}"
    train = Dataset(rows=rows, features=4, classes=3)
    assert complete(spec_of(text), train).distribution.micro_batches == micro_batches


@pytest.mark.parametrize("batch_size", [1, 50, 100, 5000])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 64, 10_000])
def test_the_number_of_workers_changes_nothing_else_of_a_spec(batch_size, workers):
    """Specs that differ in their workers alone do so completed, too: the arithmetic of both is the same."""
    text = f"model: {{layers: [4, 3]}}\ntraining: {{batch_size: {batch_size}}}"
    one, many = (
        complete(spec_of(f"{text}\ndistribution: {{workers: {count}}}"), Dataset(rows=9999, features=4, classes=3))
        for count in (1, workers)
    )
    one.distribution.workers = workers
    assert one == many


def test_a_spec_without_its_required_parts_does_not_get_them():
    """Data and model are for the author to give."""
    completed = complete(JobSpec(), LABELS)
    assert not completed.HasField("data")
    assert not completed.HasField("model")
