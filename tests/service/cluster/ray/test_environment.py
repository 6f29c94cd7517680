"""Ray's settings: a Ray of our own has a token of its own; who joins another one sends the user's."""

import pwd
from pathlib import Path

import pytest

from service.cluster.ray.environment import prepare_embedded, prepare_guest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with nothing in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_ray_of_our_own_asks_for_a_token_of_its_own() -> None:
    """A new one for each, whatever the user has for other clusters; and so nothing is written into the home."""
    users = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "users", "RAY_AUTH_TOKEN_PATH": "/users", "OTHER": "kept"}
    first, second = dict(users), dict(users)
    prepare_embedded(first)
    prepare_embedded(second)
    for environment in (first, second):
        assert environment["RAY_AUTH_MODE"] == "token"
        assert len(environment["RAY_AUTH_TOKEN"]) == 64
        assert "RAY_AUTH_TOKEN_PATH" not in environment
        assert environment["OTHER"] == "kept"
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
@pytest.mark.usefixtures("home")
def test_a_guest_sends_the_token_that_it_was_given(name: str) -> None:
    """It stays what it is."""
    environment = {name: "users"}
    prepare_guest(environment)
    assert (environment[name], environment["RAY_AUTH_MODE"]) == ("users", "token")


def test_a_guest_sends_the_token_of_the_home_directory(home: Path) -> None:
    """Where Ray looks for it, unless the user says that the cluster asks for none."""
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("users")
    environment: dict[str, str] = {}
    prepare_guest(environment)
    assert environment["RAY_AUTH_MODE"] == "token"
    environment = {"RAY_AUTH_MODE": "disabled"}
    prepare_guest(environment)
    assert environment["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.usefixtures("home")
def test_a_guest_without_a_token_sends_none() -> None:
    """Whether the cluster asks for one is the cluster's business."""
    environment: dict[str, str] = {}
    prepare_guest(environment)
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & environment.keys()


def test_a_guest_needs_no_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know has none, as in a container with a uid of its own."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    environment: dict[str, str] = {}
    prepare_guest(environment)
    assert "RAY_AUTH_MODE" not in environment
