"""The public names of the package."""

import nablad.jobspec


def test_every_public_name_is_there():
    """What the package says it exports exists, and in alphabetical order."""
    assert all(hasattr(nablad.jobspec, name) for name in nablad.jobspec.__all__)
    assert sorted(nablad.jobspec.__all__) == nablad.jobspec.__all__
