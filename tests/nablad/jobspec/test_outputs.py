"""Cost functions and output activations."""

import pytest

from nablad.jobspec import ALLOWED_OUTPUTS, name_of, output_allowed
from nablad.jobspec.outputs import cost_for, misfit, output_for
from nablad.v1 import job_spec_pb2 as v1

COSTS = sorted(set(v1.CostFunction.values()) - {v1.COST_FUNCTION_UNSPECIFIED})
ACTIVATIONS = sorted(set(v1.Activation.values()) - {v1.ACTIVATION_UNSPECIFIED})


@pytest.mark.parametrize("cost", COSTS)
def test_every_cost_function_goes_with_its_own_choice(cost):
    """The output activation that is chosen for a cost function is one that it is defined for."""
    assert output_allowed(cost, output_for(cost))


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_every_output_activation_goes_with_its_own_choice(output, labels):
    """The cost function that is chosen for an output activation is defined for it."""
    assert output_allowed(cost_for(output, labels=labels), output)


@pytest.mark.parametrize("output", ACTIVATIONS)
@pytest.mark.parametrize("cost", COSTS)
def test_every_refused_pair_has_its_reason(cost, output):
    """A pair that is refused can be explained, and the advice is one that is allowed."""
    if not output_allowed(cost, output):
        reason = misfit(cost, output)
        assert f"but {name_of(v1.Activation.DESCRIPTOR, output)} gives" in reason
        assert all(name_of(v1.Activation.DESCRIPTOR, other) in reason for other in ALLOWED_OUTPUTS[cost])
