"""The public names of the package."""

import nablad.spec


def test_every_public_name_is_there():
    """What the package says it exports exists, and in alphabetical order."""
    assert all(hasattr(nablad.spec, name) for name in nablad.spec.__all__)
    assert sorted(nablad.spec.__all__) == nablad.spec.__all__
