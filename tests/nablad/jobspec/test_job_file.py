"""What job files say, and what is said about their mistakes."""

import json

import pytest

from nablad.errors import InvalidRequestError
from nablad.jobspec import check, load, parse, to_yaml
from nablad.jobspec.job_file import MAXIMUM_BYTES
from nablad.v1 import job_spec_pb2 as v1


def said(text: str) -> list[str]:
    return [str(violation) for violation in parse(text)[1]]


def test_the_job_file_of_the_design_is_read(job_file):
    """Every field of the documented job file arrives, and none of it breaks a rule."""
    spec, found = parse(job_file)
    assert check(spec, unread=found).violations == []
    assert (spec.name, spec.data.train, spec.data.scaling) == ("mnist-paper", "mnist-train", v1.SCALING_UNIT)
    assert list(spec.model.layers) == [784, 100, 50, 10]
    assert list(spec.model.activation) == [v1.ACTIVATION_SIGMOID]
    assert spec.cost.inner[0] == v1.InnerTerm(layer=1, nodes=range(4), term=v1.TERM_SPARSITY, target=0.05, weight=1e-3)
    assert (spec.training.epochs, spec.training.seed) == (30, 7)
    assert spec.training.stopping == v1.StoppingSpec(target_accuracy=0.98, patience=5, minimum_improvement=0.001)
    assert spec.training.warm_start.checkpoint_of == "mnist-first-1f2e3d"
    assert (spec.distribution.policy.name, spec.distribution.transport) == (v1.POLICY_SYNC, v1.TRANSPORT_INLINE)
    assert (spec.priority, spec.limits) == (-5, v1.LimitsSpec(attempts=5, wall_time_seconds=3600))
    assert spec.checkpoints == v1.CheckpointsSpec(every_epochs=1, every_seconds=60)


def test_four_mistakes_are_named_at_once():
    """A misspelt key, a misspelt value, a number out of range and one of the wrong kind: all four, and nothing else."""
    spec, found = parse("""
        data: {train: digits, scalling: unit}
        model: {layers: [64, 50, 30, 10], activation: [relu, sigmiod]}
        training: {epochs: 0, batch_size: many}
    """)
    assert [str(violation) for violation in check(spec, unread=found).violations] == [
        'data.scalling: there is no such key; did you mean "scaling"? allowed: train, validation, scaling',
        'model.activation[1]: got "sigmiod"; did you mean "sigmoid"? allowed: elu, gelu, identity, leaky_relu, relu, '
        "selu, sigmoid, softmax, softplus, softsign, tanh",
        "training.epochs: got 0; allowed: 1 to 1000000",
        'training.batch_size: got "many"; allowed: a whole number, 1 to 10000000',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {seed: -1}", "training.seed: got -1; allowed: 0 to 18446744073709551615"),
        ("training: {seed: 1e999999999}", "training.seed: got 1e999999999; allowed: 0 to 18446744073709551615"),
        ("training: {epochs: 4294967296}", "training.epochs: got 4294967296; allowed: 1 to 1000000"),
        ("training: {epochs: 3.5}", "training.epochs: got 3.5; allowed: a whole number, 1 to 1000000"),
        ("training: {epochs: true}", "training.epochs: got true; allowed: a whole number, 1 to 1000000"),
        ('{"training": {"epochs": true}}', "training.epochs: got true; allowed: a whole number, 1 to 1000000"),
        ("training: {epochs: [3]}", "training.epochs: got a list; allowed: a whole number, 1 to 1000000"),
        ("training: {epochs: {a: 3}}", "training.epochs: got a mapping; allowed: a whole number, 1 to 1000000"),
        ("training: {epsilon: .inf}", 'got ".inf"; allowed: a number, more than 0, at most 1000'),
        ("training: {epsilon: nan}", 'got "nan"; allowed: a number, more than 0, at most 1000'),
        ("training: {epsilon: 1e999}", "got 1e999; allowed: a number, more than 0, at most 1000"),
        ("cost: {huber_delta: x}", 'cost.huber_delta: got "x"; allowed: a number, more than 0'),
        ("model: {bias: 2}", "model.bias: got 2; allowed: true, false"),
        ("model: {activation: [relu, null]}", "model.activation[1]: got null; allowed: elu,"),
        ("model: {layers: [8, [3]]}", "model.layers[1]: got a list; allowed: a whole number, 0 to 1000000"),
        ("distribution: {transport: grpc}", 'distribution.transport: got "grpc"; allowed: auto, inline, shared'),
        ("training: 3", "training: got 3; allowed: a mapping with the keys epochs, batch_size"),
        ("cost: {inner: [3]}", "cost.inner[0]: got 3; allowed: a mapping with the keys layer, nodes"),
        ("cost: {inner: " + str([3] * 101) + "}", "cost.inner: got 101 elements; allowed: at most 100"),
        ('name: "\\ud800"', "name: got \"\\ud800\"; allowed: 1 to 63 letters, digits, '.', '_' or '-'"),
        ("epochs: 3", 'epochs: there is no such key; did you mean "training.epochs"? allowed: name, data,'),
        ("patience: 3", 'patience: there is no such key; did you mean "training.stopping.patience"? allowed: name,'),
        ("training: {name: sgd}", 'training.name: there is no such key; did you mean "training.optimizer.name"?'),
        ("data: {model: {}}", 'data.model: there is no such key; did you mean "model"? allowed: train,'),
        ("priority: 1e10", "priority: got 1e10; allowed: -1000 to 1000"),
        ("? a b\n: 1", '"a b": there is no such key; allowed: name, data,'),
        ("name: a\nname: b", "name: given twice, as name and as name; give it once"),
        ("training: {epsilon: 1, learning_rate: 1}", "given twice, as epsilon and as learning_rate; give it once"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(text, message):
    """Each mistake gives one violation with its path, what came and what is allowed."""
    (violation,) = said(text)
    assert message in violation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "a job file is a mapping with the keys name, data, model, cost, training, distribution, priority, limits, "
            "checkpoints; got nothing",
        ),
        ("- name: a", "limits, checkpoints; got a list"),
        ("name: [a", "not valid YAML in line 1, column 9: expected ',' or ']', but got '<stream end>'"),
        ("name: a\n  data: b", "not valid YAML in line 2, column 7: mapping values are not allowed here"),
        ("name: a\nx: \x00", "not valid YAML in line 2, column 4: the character 0x0"),
        ("name: a\n---\nname: b", "not valid YAML in line 2, column 1: but found another document"),
        (
            "name: &a b\ndata: *a",
            "not valid YAML in line 2, column 7: aliases (*name) are not known here; write it out",
        ),
        ("name: !!python/name:os.system a", "the tag !!python/name:os.system is not known here; leave it out"),
        ("? [a]\n: b", "not valid YAML in line 1, column 3: a key has to be a word"),
        ('name: "\\UFFFFFFFF"', "not valid YAML: "),
        ("[" * 5000, "the text is nested too deeply"),
        ('{"a":' * 5000, "the text is nested too deeply"),
        ("#" * (MAXIMUM_BYTES + 1), "a job file has at most 1048576 bytes; this one has more"),
        ("é" * MAXIMUM_BYTES, "a job file has at most 1048576 bytes; this one has more"),
    ],
)
def test_a_text_that_is_no_job_file_is_answered_with_one_sentence(text, message):
    """Malformed text gives one violation of the whole, with the line and column where there is one."""
    (violation,) = parse(text)[1]
    assert violation.field == ""
    assert message in violation.message


def test_nothing_more_is_said_about_a_text_that_is_no_job_file():
    """A spec that could not be read is not said to lack its required fields."""
    spec, found = parse("name: [a")
    assert check(spec, unread=found).violations == found


@pytest.mark.parametrize("number", ["1e-3", "0.001", "1.0e-3", "'0.001'", "+.001"])
def test_a_number_is_read_however_it_is_written(number):
    """Every usual way of writing a number gives the same number, also those that YAML takes for text."""
    spec, found = parse(f"training: {{epsilon: {number}}}")
    assert (spec.training.learning_rate, found) == (0.001, [])


@pytest.mark.parametrize("number", ["1000", "1000.0", "1e3", "1_000", "'1000'", "01000"])
def test_a_whole_number_is_read_however_it_is_written(number):
    """A whole number may be written with a point or an exponent; a leading zero makes no octal number."""
    spec, found = parse(f"training: {{epochs: {number}}}")
    assert (spec.training.epochs, found) == (1000, [])


def test_a_large_seed_keeps_all_digits():
    """Integers never pass through floating point."""
    assert parse(f"training: {{seed: {2**64 - 1}}}")[0].training.seed == 2**64 - 1


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("training: {optimizer: adam}", "training: {optimizer: {name: adam}}"),
        ("distribution: {policy: backup}", "distribution: {policy: {name: backup}}"),
    ],
)
def test_a_scalar_stands_for_the_one_field_that_is_mostly_meant(short, long):
    """The same spec is read, and the short form is written."""
    spec, found = parse(short)
    assert (spec, found) == parse(long)
    assert not found
    assert parse(to_yaml(spec))[0] == spec
    assert to_yaml(spec) == f"{short}\n"


def test_a_scalar_that_stands_for_a_field_is_refused_as_that_field():
    """The name of the field, and what is allowed there; a list is no scalar."""
    assert said("training: {optimizer: adamm}") == [
        'training.optimizer.name: got "adamm"; did you mean "adam"? allowed: adam, momentum, nesterov, sgd'
    ]
    assert said("distribution: {policy: 3}") == ["distribution.policy.name: got 3; allowed: backup, sync"]
    (violation,) = said("distribution: {policy: [sync]}")
    assert violation.startswith("distribution.policy: got a list; allowed: a mapping with the keys name")


def test_a_scalar_stands_for_a_list_of_one():
    """One value, or one mapping, may be written without brackets."""
    short, found = parse("model: {activation: tanh}\ncost: {inner: {layer: 1}}")
    assert found == []
    assert short == parse("model: {activation: [tanh]}\ncost: {inner: [{layer: 1}]}")[0]


def test_auto_stands_for_what_the_data_set_fixes():
    """`auto` is 0 in layers and nowhere else, and is written back."""
    spec, found = parse("model: {layers: [auto, 30, auto]}")
    assert (list(spec.model.layers), found) == ([0, 30, 0], [])
    assert "[auto, 30, auto]" in to_yaml(spec)
    assert said("training: {epochs: auto}") != []


@pytest.mark.parametrize("text", ["name: null", "name: ~", "name:", "{}", '{"name": null}', "cost: null\nmodel:"])
def test_null_means_left_out(text):
    """A key without a value is as good as no key."""
    assert parse(text) == (v1.JobSpec(), [])


@pytest.mark.parametrize("name", ["no", "2024", "1e3", "0x10", "2001-02-03", "none"])
def test_text_is_text(name):
    """What YAML would take for another type is still a name where a name stands."""
    assert parse(f"name: {name}")[0].name == name


def test_json_is_read_like_yaml(job_file):
    """JSON with tabs, which YAML does not know, gives the same spec."""
    tree = {"training": {"epochs": 3, "seed": 7}, "model": {"layers": [4, 3], "bias": False, "activation": "relu"}}
    yaml_text = "training: {epochs: 3, seed: 7}\nmodel: {layers: [4, 3], bias: no, activation: relu}"
    assert parse(json.dumps(tree, indent="\t")) == parse(yaml_text)


def test_what_is_right_is_kept_beside_what_is_wrong():
    """Only the wrong fields are left out; a list with a mistake as a whole, a list of mappings element by element."""
    spec, _ = parse("""
        model: {layers: [4, x, 2], activation: relu}
        cost: {inner: [{layer: x, weight: 1}, {layer: 2}]}
        training: {epoch: 9}
    """)
    assert (list(spec.model.layers), list(spec.model.activation)) == ([], [v1.ACTIVATION_RELU])
    assert [(term.layer, term.weight) for term in spec.cost.inner] == [(0, 1.0), (2, 0.0)]
    assert spec.training.epochs == 9


def test_a_misspelt_key_beside_the_right_one_does_not_count_twice():
    """The value of a misspelt key is read for the probable key only where that was not given."""
    spec, found = parse("training: {epoch: 9, epochs: 8}")
    assert spec.training.epochs == 8
    assert [violation.field for violation in found] == ["training.epoch"]


def test_a_mistake_hides_no_other_and_makes_no_new_one():
    """Rules that rest on a field that could not be read are silent; all others speak."""
    spec, found = parse("""
        data: {train: d}
        model: {layers: [4, 3, x], activation: [relu, relu, relu]}
        cost: {inner: [{layer: 9, term: sparcity, target: 0.1, weight: 0}]}
        training: {optimizer: {name: adamm, beta1: 0.9}}
        distribution: {micro_batches: 101}
    """)
    fields = [violation.field for violation in check(spec, unread=found).violations]
    assert fields == [
        "model.layers[2]",
        "cost.inner[0].term",
        "cost.inner[0].weight",
        "training.optimizer.name",
        "distribution.micro_batches",
    ]


def test_a_file_is_read(tmp_path, job_file):
    """A file gives what its text gives, with or without a byte order mark."""
    path = tmp_path / "job.yaml"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(job_file, encoding=encoding)
        assert load(path) == parse(path.read_bytes())[0] == parse(job_file)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: \xff", "a job file is text in UTF-8; byte 6 of this one is not"),
        ("é".encode() * MAXIMUM_BYTES, "a job file has at most 1048576 bytes; this one has more"),
        (b"\n" * MAXIMUM_BYTES + "é".encode(), "a job file has at most 1048576 bytes; this one has more"),
    ],
)
def test_a_file_that_is_no_text_is_answered_with_one_sentence(tmp_path, content, message):
    """Bytes that are not UTF-8, and too many of them, are one violation."""
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    assert [str(violation) for violation in parse(content)[1]] == [message]
    with pytest.raises(InvalidRequestError) as refused:
        load(path)
    assert str(refused.value) == message


def test_loading_a_wrong_file_raises_all_of_its_mistakes(tmp_path):
    """Keys that are misspelt and values that are not allowed, in the words of `nabla job submit`."""
    path = tmp_path / "job.yaml"
    path.write_text("data: {trian: d}\nmodel: {layers: [4, 3], activaton: relu}\ntraining: {epochs: 0}")
    with pytest.raises(InvalidRequestError) as refused:
        load(path)
    assert [violation.field for violation in refused.value.violations] == [
        "data.trian",
        "model.activaton",
        "training.epochs",
    ]
    heading, *lines = str(refused.value).splitlines()
    assert heading == "3 mistakes:"
    assert lines[0] == '  data.trian: there is no such key; did you mean "train"? allowed: train, validation, scaling'


def test_a_missing_file_is_an_oserror(tmp_path):
    """That a file cannot be read is not the job's mistake."""
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.yaml")


def test_a_spec_is_written_as_people_write_it(job_file):
    """The written job file uses lowercase names and no empty fields."""
    text = to_yaml(parse(job_file)[0])
    assert "data: {train: mnist-train, validation: mnist-test, scaling: unit}\n" in text
    assert "  layers: [784, 100, 50, 10]\n" in text
    assert "huber_delta" not in text
