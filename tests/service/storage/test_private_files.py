"""Who else may write to a file, and how the rights of others are taken away."""

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest

from service.storage.private_files import foreign_owner, other_writers, restrict_to_owner

USER, GROUP, ANOTHER = 1000, 2000, 3000
FOLDER = stat.S_IFDIR


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[str, list[str]]]:
    """Name and members of each group of a machine, on which this process is USER, called anna, in GROUP."""
    groups: dict[int, tuple[str, list[str]]] = {}

    def named(group: int) -> grp.struct_group:
        name, members = groups[group]
        return grp.struct_group((name, "x", group, members))

    def called(user: int) -> pwd.struct_passwd:
        return pwd.struct_passwd(({USER: "anna", 0: "root"}[user], "x", user, GROUP, "", "/", "/bin/sh"))

    monkeypatch.setattr(os, "geteuid", lambda: USER)
    monkeypatch.setattr(os, "getegid", lambda: GROUP)
    monkeypatch.setattr(os, "getgroups", lambda: [GROUP])
    monkeypatch.setattr(grp, "getgrgid", named)
    monkeypatch.setattr(pwd, "getpwuid", called)
    return groups


def _facts(mode: int, user: int = USER, group: int = GROUP) -> os.stat_result:
    return os.stat_result((FOLDER | mode, 0, 0, 2, user, group, 0, 0, 0, 0))


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize(
    ("facts", "writers"),
    [
        (_facts(0o700), None),
        (_facts(0o755), None),
        (_facts(0o755, user=0), None),
        (_facts(0o700, user=ANOTHER), "user 3000"),
        (_facts(0o777), "everybody"),
        (_facts(0o1777, user=0), "everybody"),
        (_facts(0o770, group=ANOTHER), "the group 3000"),
    ],
)
def test_who_else_may_write(facts: os.stat_result, writers: str | None) -> None:
    """Root may anyway; the sticky bit keeps nobody from writing."""
    assert other_writers(facts) == writers


@pytest.mark.parametrize(
    ("group", "alone"),
    [
        (("anna", []), True),
        (("anna", ["anna"]), True),
        (("root", []), True),
        (("anna", ["bert"]), False),
        (("users", []), False),
        (("staff", ["anna"]), False),
        (None, True),
    ],
)
def test_a_group_of_one_is_nobody_else(
    members: dict[int, tuple[str, list[str]]], group: tuple[str, list[str]] | None, alone: bool
) -> None:
    """The user's own, or a number that the system has no name for: that of a volume in a container."""
    if group:
        members[GROUP] = group
    assert (other_writers(_facts(0o2775, user=0)) is None) == alone


@pytest.mark.usefixtures("members")
def test_what_belongs_to_others_is_named() -> None:
    """By the user's number, where there is no name."""
    assert [foreign_owner(_facts(0o700, user=user)) for user in (USER, 0, ANOTHER)] == [None, None, "user 3000"]


def test_a_file_alone_is_tightened(tmp_path: Path) -> None:
    """Its owner's rights stay what they are; so does a link, and what is behind it."""
    file, link, other = tmp_path / "file", tmp_path / "link", tmp_path / "other"
    for path in (file, other):
        path.touch()
        path.chmod(0o577)
    link.symlink_to(other)
    restrict_to_owner(file)
    restrict_to_owner(link)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, other)] == [0o500, 0o577]


def test_the_top_is_tightened_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was interrupted does it again."""
    paths = [tmp_path / "a" / "b" / "file", tmp_path / "a" / "b", tmp_path / "a"]
    paths[1].mkdir(parents=True)
    paths[0].touch()
    done: list[Path] = []
    for path in paths:
        path.chmod(0o777)
    monkeypatch.setattr(Path, "chmod", lambda path, _: done.append(path))
    restrict_to_owner(tmp_path / "a")
    assert done == paths


def test_what_cannot_be_changed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for all of it."""

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in ("a", "b"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    monkeypatch.setattr(Path, "chmod", refuse)
    restrict_to_owner(tmp_path)
    (said,) = caplog.messages
    assert f"others may read {tmp_path}" in said
    assert "2 entries" in said
