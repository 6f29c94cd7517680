"""What `import nablad` offers, and what it costs."""

import subprocess
import sys

import pytest

import nablad
import nablad.client
import nablad.errors


def test_all_names_exist_and_are_sorted():
    """Everything in __all__ can be had, the lazily imported names too."""
    assert nablad.__all__ == sorted(nablad.__all__)
    assert all(getattr(nablad, name) is not None for name in nablad.__all__)


def test_all_holds_the_client_and_every_error():
    """What a user needs to call the service and to catch its errors is at the top."""
    assert set(nablad.__all__) == {*nablad.client.__all__, *nablad.errors.__all__}


def test_unknown_names_are_refused_as_in_any_module():
    """A misspelt name is an AttributeError that says so."""
    with pytest.raises(AttributeError, match="has no attribute 'Clint'"):
        nablad.Clint  # noqa: B018  # the look-up is the test


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("nablad.cli", {"numpy", "ray", "workers", "service", "grpc", "google", "yaml"}),
        ("nablad.cli.watching", {"numpy", "ray", "workers", "service"}),
        ("nablad.cli.job", {"numpy", "ray", "workers", "service"}),
        ("nablad.local", {"numpy", "ray", "workers", "service", "grpc", "google"}),
        ("nablad", {"numpy", "ray", "workers", "service", "grpc", "google"}),
        ("nablad.client", {"numpy", "ray", "workers", "service"}),
    ],
)
def test_the_client_s_side_imports_nothing_of_the_server_s(module, strangers):
    """A client machine needs neither numpy nor Ray, and `nabla --help` does not wait for gRPC."""
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert strangers.isdisjoint(loaded)
