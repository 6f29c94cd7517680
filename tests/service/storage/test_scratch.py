"""The folder for sockets: short enough for them, and always the same."""

from pathlib import Path

import pytest

from service.storage.scratch import MOST_BYTES, ScratchError, scratch_folder

DATA = Path("/data")
SLURM = "/scratch/slurm/tmp/job.12345678.node-0017/"


def _place(environment: dict[str, str], *unusable: str) -> str:
    return str(scratch_folder(DATA, environment, lambda place: str(place) not in unusable).parent)


def test_the_directory_that_the_environment_names_is_taken() -> None:
    """In the order that is usual."""
    assert _place({"TMPDIR": "/short", "TMP": "/other"}) == "/short"
    assert _place({"TMP": "/other"}) == "/other"
    assert _place({}) == "/tmp"  # noqa: S108


def test_a_long_one_is_passed_over() -> None:
    """The sockets below would not fit; those of a batch system have 41 characters and more."""
    assert _place({"TMPDIR": SLURM}) == "/tmp"  # noqa: S108
    longest = "/" + "x" * (MOST_BYTES - len(scratch_folder(DATA, {}, lambda _: True).name) - 2)
    assert _place({"TMPDIR": longest}) == longest
    assert _place({"TMPDIR": longest + "x"}) == "/tmp"  # noqa: S108


def test_the_length_counts_in_bytes() -> None:
    """As the kernel counts."""
    assert _place({"TMPDIR": "/" + "é" * 12}) == "/tmp"  # noqa: S108


def test_one_that_cannot_be_written_is_passed_over() -> None:
    """Memory and the user's own come last."""
    assert _place({"TMPDIR": "/gone"}, "/gone") == "/tmp"  # noqa: S108
    assert _place({}, "/tmp") == "/var/tmp"  # noqa: S108
    assert _place({}, "/tmp", "/var/tmp") == "/dev/shm"  # noqa: S108
    here = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert _place(here, "/tmp", "/var/tmp", "/dev/shm") == "/run/user/7"  # noqa: S108


def test_a_relative_one_is_passed_over() -> None:
    """Processes in other directories have to find it."""
    assert _place({"TMPDIR": "here"}) == "/tmp"  # noqa: S108


def test_without_a_place_the_error_says_what_was_tried_and_what_to_set() -> None:
    """With the reason for each."""
    with pytest.raises(ScratchError) as none:
        scratch_folder(DATA, {"TMPDIR": SLURM}, lambda _: False)
    assert f"'{SLURM.rstrip('/')}' has more than " in str(none.value)
    assert "'/dev/shm' cannot be written; set TMPDIR to a directory" in str(none.value)


def test_the_folder_is_the_data_directory_s_own() -> None:
    """The same at every start, and another one for another data directory."""
    assert scratch_folder(DATA, {}, lambda _: True) == scratch_folder(DATA, {}, lambda _: True)
    assert scratch_folder(DATA, {}, lambda _: True) != scratch_folder(Path("/other"), {}, lambda _: True)


def test_a_directory_that_is_not_there_is_not_used(tmp_path: Path) -> None:
    """By what the file system says."""
    assert scratch_folder(DATA, {"TMPDIR": "/nowhere-at-all"}).parent != Path("/nowhere-at-all")
