"""The arithmetic of a network's form."""

import pytest

from benchmarks.scale.forms import Form
from workers.mathematics.parameters import ParameterLayout


@pytest.mark.parametrize("layers", [(784, 10), (784, 100, 50, 10), (3, 2, 2, 2, 1)])
def test_weights_are_those_of_the_parameter_vector(layers: tuple[int, ...]) -> None:
    """The model counts what the mathematics lays out."""
    assert Form(layers).weights == ParameterLayout(layers, bias=True).size


def test_flops_are_counted_product_by_product() -> None:
    """Two for each multiply-add of W ⊙ A, Wᵀ ⊙ δ and δ ⊙ Aᵀ; the first layer has no layer before it to go back to."""
    forward, back, gradient = 4 * 3 + 3 * 2, 3 * 2, 4 * 3 + 3 * 2
    assert Form((4, 3, 2)).flops == 2 * (forward + back + gradient)


@pytest.mark.parametrize("size", [10**5, 10**6, 10**7, 10**8, 10**9])
def test_a_form_of_a_size_has_about_that_size(size: int) -> None:
    """To one per cent."""
    assert Form.of_size(size).weights == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("layers", [(784, 10), (784, 100, 50, 10), (3, 2, 2, 2, 1)])
def test_gradient_parts_make_up_the_gradient(layers: tuple[int, ...]) -> None:
    """One part for each layer, one after the other; the last one stands when all is computed."""
    done, shares = zip(*Form(layers).gradient_parts, strict=True)
    assert len(shares) == len(layers) - 1
    assert list(done) == sorted(done)
    assert done[-1] == pytest.approx(1)
    assert sum(shares) == pytest.approx(1)
