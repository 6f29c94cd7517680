"""Bounds on connections: which one is closed when there are too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.metrics.server import Connections, peer_of


def _filled(most: int, most_of_peer: int, peers: str) -> Connections[int]:
    """Connections 0, 1, 2 … of these peers, all of which wait."""
    connections: Connections[int] = Connections(most, most_of_peer)
    for number, peer in enumerate(peers):
        assert connections.admit(number, peer) is None
    return connections


def test_the_longest_waiting_makes_room_for_one_of_the_same_peer() -> None:
    """A peer has no more than its share, and its newest connection is the one that may send a request yet."""
    connections = _filled(10, 3, "abaa")
    assert connections.admit(9, "a") == 0
    assert connections.admit(8, "a") == 2
    assert connections.admit(7, "b") is None


def test_the_busiest_peer_makes_room_for_others() -> None:
    """The one connection of a quiet peer stays, however many others come."""
    connections = _filled(6, 4, "abbbcb")
    assert [connections.admit(10 + number, "d") for number in range(3)] == [1, 2, 3]


def test_one_that_is_answered_does_not_make_room() -> None:
    """Neither for its own peer nor for others; where all are answered, the new one has to go."""
    connections = _filled(3, 2, "aab")
    assert connections.begin_answer(0)
    assert connections.begin_answer(2)
    assert connections.admit(3, "c") == 1
    assert connections.begin_answer(3)
    assert connections.admit(4, "c") == 4
    assert connections.admit(5, "a") == 5


def test_one_that_made_room_is_not_answered() -> None:
    """Its request may come at the same moment."""
    connections = _filled(1, 1, "a")
    assert connections.admit(1, "b") == 0
    assert not connections.begin_answer(0)
    connections.remove(0)
    assert connections.begin_answer(1)


_STEPS = st.lists(
    st.tuples(st.sampled_from(["admit", "answer", "remove"]), st.integers(0, 30), st.sampled_from("abcd"))
)


@given(_STEPS)
def test_the_bounds_hold_whatever_happens(steps: list[tuple[str, int, str]]) -> None:
    """Never more than so many, nor more of a peer; and those that are answered are there until they are removed."""
    connections: Connections[int] = Connections(6, 3)
    open_: dict[int, str] = {}
    answered: set[int] = set()
    for number, (step, which, peer) in enumerate(steps):
        if step == "admit":
            open_[new := 100 + number] = peer
            if (closed := connections.admit(new, peer)) is not None:
                assert closed not in answered
                del open_[closed]
        elif open_:
            chosen = list(open_)[which % len(open_)]
            if step == "answer":
                assert connections.begin_answer(chosen) == (chosen not in answered)
                answered.add(chosen)
            else:
                connections.remove(chosen)
                del open_[chosen]
        assert len(open_) <= 6
        assert all(list(open_.values()).count(peer) <= 3 for peer in "abcd")


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_is_one_peer(host: str, peer: str) -> None:
    """One host usually has all its addresses."""
    assert peer_of(host) == peer
