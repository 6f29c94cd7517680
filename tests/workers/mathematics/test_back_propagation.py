import gc
import itertools
import mmap
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.mathematics.back_propagation import BackPropagation
from workers.mathematics.initialisations import initialise
from workers.mathematics.inner_terms import InnerTerm
from workers.mathematics.network import Network

TERMS = (InnerTerm(1, "squared_activity", 0.3, (0, 2)), InnerTerm(2, "balance", 0.2))
NETWORK = Network((6, 5, 4, 3), ("tanh", "sigmoid", "softmax"), "categorical_cross_entropy", inner_terms=TERMS)


@pytest.mark.parametrize("labels", [True, False])
def test_order_of_samples(labels, make_case):
    """The order of the samples changes the sums by no more than rounding, even where a term couples them."""
    network = Network((6, 5, 3), ("sigmoid", "sigmoid"), "log_loss", inner_terms=(InnerTerm(1, "sparsity", 0.4),))
    case = make_case(network, samples=40, labels=labels)
    gradient, sums = case.gradient()
    shuffled, again = case.gradient(np.random.default_rng(5).permutation(40))
    np.testing.assert_allclose(shuffled, gradient, rtol=1e-12, atol=1e-13)
    assert again.cost_sum == pytest.approx(sums.cost_sum, rel=1e-13)
    assert (again.samples, again.correct_count) == (sums.samples, sums.correct_count)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 30), max_size=6))
def test_micro_batches_add_up(cuts, make_case):
    """The sums of the parts of a mini-batch, cut anywhere, are the sums of the whole."""
    case = make_case(NETWORK, samples=30, labels=True)
    whole, sums = case.gradient()
    bounds = [0, *sorted(cuts), 30]
    parts = [case.gradient(slice(a, b)) for a, b in itertools.pairwise(bounds)]
    added = np.sum([gradient for gradient, _ in parts], axis=0)
    assert np.linalg.norm(added - whole) <= 1e-12 * np.linalg.norm(whole)
    assert sum(part.cost_sum for _, part in parts) == pytest.approx(sums.cost_sum, rel=1e-12)
    assert sum(part.samples for _, part in parts) == sums.samples == 30
    assert sum(part.correct_count for _, part in parts) == sums.correct_count


def test_sparsity_takes_the_mean_over_the_micro_batch(make_case):
    """Sparsity adds samples · weight · Σ KL(target ‖ mean activity over the call's samples) to the cost sum."""
    term = InnerTerm(1, "sparsity", 0.7, (3, 1), target=0.2)
    plain = Network((4, 5, 2), ("sigmoid", "sigmoid"), "log_loss")
    case = make_case(Network(plain.layers, plain.activations, plain.cost, inner_terms=(term,)), samples=9)
    W, b = case.back_propagation.layout.views(case.parameters)[0]
    mean = (1 / (1 + np.exp(-(case.x @ W.T + b)))).mean(axis=0)[[3, 1]]
    divergence = 0.2 * np.log(0.2 / mean) + 0.8 * np.log(0.8 / (1 - mean))
    without = BackPropagation(plain, np.float64).evaluate(case.parameters, case.x, case.targets).cost_sum
    assert case.cost_at(case.parameters) - without == pytest.approx(9 * 0.7 * divergence.sum(), rel=1e-11)


@pytest.mark.parametrize("sparse", [True, False])
def test_no_samples(sparse, make_case):
    """An empty part of a mini-batch adds nothing: ∇ and all sums are 0."""
    terms = (InnerTerm(1, "sparsity" if sparse else "balance", 0.4),)
    case = make_case(Network((6, 5, 3), ("sigmoid", "softmax"), "log_loss", inner_terms=terms), labels=True)
    gradient, sums = case.gradient(slice(0, 0))
    assert not gradient.any()
    assert (sums.cost_sum, sums.samples, sums.correct_count) == (0.0, 0, 0)


def test_evaluation_is_the_gradients_sums(make_case):
    """Evaluation answers the very sums that come with the gradient, to the last bit."""
    case = make_case(NETWORK, samples=20, labels=True, dtype=np.float32)
    _, sums = case.gradient()
    assert case.back_propagation.evaluate(case.parameters, case.x, case.targets) == sums


@pytest.mark.parametrize("bias", [True, False])
def test_layers_are_announced(bias, make_case):
    """Every ∇(N), the last first, stands as it will stay, its bias included, when it is said to be done."""
    case = make_case(Network((6, 5, 4, 3), ("tanh", "sigmoid", "softmax"), "log_loss", bias=bias), samples=9)
    expected, sums = case.gradient()
    layout, out, seen = case.back_propagation.layout, np.full_like(expected, np.nan), []

    def layer_done(number):
        seen.append((number, [None if part is None else part.copy() for part in layout.views(out)[number]]))

    assert case.back_propagation.gradient(case.parameters, case.x, case.targets, out, layer_done) == sums
    assert [number for number, _ in seen] == [2, 1, 0]
    for number, copies in seen:
        for part, copy in zip(layout.views(expected)[number], copies, strict=True):
            np.testing.assert_array_equal(copy, part)


@pytest.mark.parametrize("samples", [1, 2, 37])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_depend_on_nothing_else(dtype, samples, make_case):
    """The same numbers give the same bits: in used or fresh buffers, and wherever the arrays lie in memory."""
    case = make_case(NETWORK, samples=samples, labels=True, dtype=dtype)
    expected, sums = case.gradient()
    case.gradient(slice(0, samples // 2))
    for offset in range(16):
        moved = [np.empty(array.size + offset, dtype)[offset:] for array in (case.parameters, case.x, expected)]
        parameters, x, out = moved[0], moved[1].reshape(case.x.shape), moved[2]
        parameters[...], x[...] = case.parameters, case.x
        for back_propagation in (case.back_propagation, BackPropagation(NETWORK, dtype)):
            assert back_propagation.gradient(parameters, x, case.targets, out) == sums
            assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_in_shared_memory(dtype, make_case):
    """Weights and gradient may lie in mapped memory, at the start of a page or 16 bytes after any number of them."""
    case = make_case(Network((300, 70, 30, 10), ("sigmoid",) * 3, "log_loss"), samples=45, labels=True, dtype=dtype)
    expected, sums = case.gradient()
    region = mmap.mmap(-1, 2 * (expected.nbytes + 2 * mmap.PAGESIZE))

    def vector(start):
        return np.frombuffer(region, dtype, expected.size, start)

    @given(st.tuples(*[st.integers(0, mmap.PAGESIZE // 16)] * 2), st.sampled_from([45, 20, 1]))
    def holds(sixteens, before):
        parameters = vector(16 * sixteens[0])
        out = vector(16 * sixteens[1] + expected.nbytes + mmap.PAGESIZE)
        case.gradient(slice(0, before))
        parameters[...], out[...] = case.parameters, np.nan
        assert case.back_propagation.gradient(parameters, case.x, case.targets, out) == sums
        assert out.tobytes() == expected.tobytes()

    holds()


@pytest.mark.parametrize(
    ("activations", "cost", "terms"),
    [
        (("sigmoid", "sigmoid", "sigmoid"), "log_loss", ()),
        (("relu", "gelu", "softmax"), "categorical_cross_entropy", ()),
        (("elu", "selu", "softmax"), "huber", ()),
        (("softplus", "tanh", "softplus"), "poisson", ()),
        (("leaky_relu", "softsign", "identity"), "mean_absolute_error", (InnerTerm(3, "absolute_activity", 0.1),)),
        (("sigmoid", "relu", "softmax"), "log_loss", (InnerTerm(1, "sparsity", 0.1), *TERMS)),
    ],
)
def test_no_allocation_after_the_first_step(activations, cost, terms):
    """Steps after the first of a size allocate next to nothing: far less than any matrix of a layer."""
    network = Network((784, 100, 50, 10), activations, cost, inner_terms=terms)
    back_propagation = BackPropagation(network, np.float32)
    parameters = initialise(back_propagation.layout, "glorot_uniform", 1.0, 0, np.float32)
    generator = np.random.default_rng(0)
    batches = [
        (generator.random((n, 784), dtype=np.float32), generator.integers(0, 10, n).astype(np.uint8)) for n in (250, 97)
    ]
    out = np.empty_like(parameters)

    def steps():
        for x, labels in batches:
            back_propagation.gradient(parameters, x, labels, out)
            back_propagation.evaluate(parameters, x, labels)

    steps()
    tracemalloc.start()
    try:
        # numpy keeps small blocks for later: those from before the tracing count as new when others take their place.
        for _ in range(20):
            steps()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(5):
            steps()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 8 * 1024
    assert after - before < 1024


def test_many_sizes_do_not_pile_up(make_case):
    """GradientBuffers are kept for a few sizes only, and a size that was given up works again."""
    case = make_case(NETWORK, samples=40, labels=True)
    first, _ = case.gradient(slice(0, 1))
    for samples in range(2, 40):
        case.gradient(slice(0, samples))
    again, _ = case.gradient(slice(0, 1))
    assert again.tobytes() == first.tobytes()
    assert case.back_propagation._workspaces.cache_info().currsize <= 8


def test_many_vectors_do_not_pile_up(make_case):
    """Parameter vectors that were given once are let go after a few others."""
    case = make_case(NETWORK, samples=3, labels=True)
    vectors = [weakref.ref(case.gradient()[0]) for _ in range(20)]
    gc.collect()
    assert sum(vector() is not None for vector in vectors) <= 4


def _identity_case(outputs):
    """A network whose outputs are its inputs."""
    back_propagation = BackPropagation(
        Network((outputs, outputs), ("identity",), "mean_squared_error", bias=False), np.float64
    )
    return back_propagation, np.eye(outputs).ravel()


def test_class_is_the_largest_output():
    """A sample is right when its label's output is the largest; among equals the first one counts."""
    back_propagation, parameters = _identity_case(3)
    x = np.array([[0.1, 0.9, 0.3], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.0, 0.7, 0.7], [0.2, 0.1, 0.4]])
    sums = back_propagation.evaluate(parameters, x, np.array([1, 0, 1, 2, 2], np.uint8))
    assert sums.correct_count == 3


def test_two_classes_on_one_output():
    """With one output node the class is 1 from an activity of 0.5 on."""
    back_propagation, parameters = _identity_case(1)
    x = np.array([[0.4], [0.6], [0.5], [-2.0], [7.0]])
    assert back_propagation.evaluate(parameters, x, np.array([0, 0, 1, 0, 1])).correct_count == 4


def test_values_are_not_classified():
    """Values as targets count nothing as right."""
    back_propagation, parameters = _identity_case(2)
    x = np.ones((3, 2))
    assert back_propagation.evaluate(parameters, x, x).correct_count == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_are_one_hot_values(dtype, make_case):
    """Class labels of any integer type mean the same as one-hot values."""
    case = make_case(NETWORK, samples=12, labels=True)
    expected, sums = case.gradient()
    for targets in (case.targets.astype(dtype), np.eye(3)[case.targets], np.eye(3, dtype=np.float32)[case.targets]):
        out = np.empty_like(expected)
        cost = case.back_propagation.gradient(case.parameters, case.x, targets, out).cost_sum
        assert (cost, out.tobytes()) == (sums.cost_sum, expected.tobytes())


def test_float32_is_near_float64(make_case):
    """float32 gives what float64 gives, to its own precision."""
    exact, exact_sums = make_case(NETWORK, samples=30, labels=True).gradient()
    rounded, sums = make_case(NETWORK, samples=30, labels=True, dtype=np.float32).gradient()
    assert rounded.dtype == np.float32
    assert np.linalg.norm(rounded - exact) <= 1e-5 * np.linalg.norm(exact)
    assert sums.cost_sum == pytest.approx(exact_sums.cost_sum, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": np.zeros((4, 5))}, r"x must be float64 of shape \(samples, 6\), not float64 of shape \(4, 5\)"),
        ({"x": np.zeros((4, 6), np.float32)}, "x must be float64"),
        ({"parameters": np.zeros(3)}, "parameter vector of layers"),
        ({"parameters": np.zeros(74, np.float32)}, "must be float64, not float32"),
        ({"out": np.zeros(148)[::2]}, "must be contiguous"),
        ({"targets": np.zeros(5, np.int64)}, r"integer class labels of shape \(4,\)"),
        ({"targets": np.zeros((4, 2))}, r"floating-point values of shape \(4, 3\), not float64 of shape \(4, 2\)"),
        ({"targets": np.zeros((4, 3), np.bool_)}, "not bool"),
    ],
)
def test_wrong_arrays_are_refused(change, sentence, make_case):
    """An array of the wrong shape or type is rejected with a sentence that names both."""
    case = make_case(NETWORK, samples=4)
    arrays = {
        "parameters": case.parameters, "x": case.x, "targets": case.targets, "out": np.empty_like(case.parameters),
    }  # fmt: skip
    with pytest.raises(ValueError, match=sentence):
        case.back_propagation.gradient(**(arrays | change))
