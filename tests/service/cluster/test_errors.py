"""Log lines and sentences of errors of processes that failed."""

from pathlib import Path

from service.cluster.errors import MOST_LINES, describe_error, last_lines, read_log_end


def test_the_last_lines_are_kept_without_those_of_ray() -> None:
    """Colours, Ray's marks, the messages of its C++ part, and empty lines at both ends are removed."""
    text = (
        ":job_id:01000000\n:actor_name:_WorkerProcess\n\n\x1b[36mray::work()\x1b[39m (pid=7)\n\n"
        "[2026-11-24 12:41:50,923 E 19610 19610] logging.cc:474: PC: @ 0x7f\nValueError: x\n\n"
    )
    assert last_lines(text) == ["ray::work() (pid=7)", "", "ValueError: x"]
    assert last_lines("\n".join(map(str, range(100)))) == [str(number) for number in range(100 - MOST_LINES, 100)]
    assert last_lines("") == []


def test_the_log_of_a_replaced_process_is_found_by_its_id(tmp_path: Path) -> None:
    """The process that reported the path of its log may not be the one that failed."""
    first, second = tmp_path / "worker-aa-01000000-7.err", tmp_path / "worker-bb-01000000-8.err"
    first.write_text("first")
    second.write_text("second")
    assert read_log_end(str(first), 7) == "first"
    assert read_log_end(str(first), 8) == "second"
    assert read_log_end(str(first), 9) == "first"
    assert read_log_end(str(tmp_path / "none" / "worker-aa-01000000-7.err"), 7) == ""


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    """A process may have written gigabytes."""
    log = tmp_path / "worker-aa-01000000-7.err"
    log.write_text("a" * 1_000_000 + "\nend")
    assert len(read_log_end(str(log), 7)) < 100_000
    assert last_lines(read_log_end(str(log), 7))[-1] == "end"


def test_the_sentence_of_an_error_is_its_last_line() -> None:
    """Ray's guesses at causes are left out."""
    assert describe_error(ValueError("where\nwhat")) == "ValueError: what"
    assert describe_error(MemoryError()) == "MemoryError: no message"
    assert describe_error(OSError("it died. Some common causes include: (1) many")) == "OSError: it died."


def test_the_sentence_about_a_node_without_the_service_s_code_says_what_it_needs() -> None:
    """Ray's own advice stands above its traceback, and is lost."""
    error = RuntimeError(
        "The actor with name _WorkerProcess failed to import on the worker. This may be because needed library "
        "dependencies are not installed in the worker environment:\n\nTraceback (most recent call last):\n"
        "ModuleNotFoundError: No module named 'service'"
    )
    assert "No module named 'service'; every node of Ray needs the same nablad" in describe_error(error)
