"""Every command and option of `nabla`, with input that nobody means: never a traceback."""

import os
import socket
import subprocess
import sys
from contextlib import closing, suppress
from io import BytesIO, TextIOWrapper
from pathlib import Path

import click
import pytest
from google.protobuf.message_factory import GetMessageClass

from nablad import local
from nablad.cli import main
from nablad.cli.exits import ExitCode
from nablad.v1 import datasets_pb2, jobs_pb2, models_pb2

NABLA = (sys.executable, "-c", "from nablad.cli import main; main()")
JOB_FILE = "{data: {train: t}, model: {layers: [2, 1]}}"
TEXTS = (
    "",
    "-",
    "--",
    "latin\udce9",
    "a\0b",
    "\x1b]0;title\x07\r\n\u202e",
    "../../etc/passwd",
    "x" * 100_000,
    "%s{0}{job}",
    "-1",
    str(2**70),
    "9" * 5000,
    "NaN",
)


def _walk(command, words=()):
    """All commands, groups among them, with the words that call them."""
    yield command, words
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _walk(inner, (*words, name))


COMMANDS = list(_walk(main))
LEAVES = [(command, words) for command, words in COMMANDS if not isinstance(command, click.Group)]
PARAMETERS = [
    pytest.param(command, words, parameter, id=" ".join((*words, parameter.name)))
    for command, words in LEAVES
    for parameter in command.params
    if not (isinstance(parameter, click.Option) and parameter.is_flag)
]


def _takes_file(parameter):
    return isinstance(parameter.type, click.Path | click.File)


@pytest.fixture
def agreeable(service):
    """The service says yes to everything, and knows nothing."""
    for contract in (jobs_pb2, datasets_pb2, models_pb2):
        for method in contract.DESCRIPTOR.services_by_name.values():
            for call in method.methods:
                service.handlers[call.name] = _answer(call)
    return service


def _answer(call):
    response = GetMessageClass(call.output_type)

    def handler(request, _context):
        if call.client_streaming:
            for _ in request:
                pass
        return iter(()) if call.server_streaming else response()

    return handler


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty folder to stand in, a job file and a data file; and no service that the demo could start."""

    class NoService:
        def __init__(self, *_, **__):
            raise local.LocalServiceError("there is none in these tests")

    monkeypatch.setattr(local, "LocalService", NoService)
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(JOB_FILE)
    Path("data.csv").write_text("1,2\n")


def _command_line(command, words, address, changed=None, value=""):
    """A valid call of a command, but for one parameter that has a value of the test's."""
    options, arguments = [], []
    for parameter in command.params:
        given = value if parameter is changed else _valid(parameter)
        if parameter is changed and isinstance(parameter, click.Option):
            options.append(f"{parameter.opts[-1]}={value}")
        elif isinstance(parameter, click.Argument) and given is not None:
            arguments.append(given)
    if words[-1] == "demo" and (changed is None or changed.name != "server"):
        options.append(f"--server={address}")
    return ["--server", address, *words, *options, "--", *arguments]


def _valid(parameter):
    if not isinstance(parameter, click.Argument):
        return None
    if isinstance(parameter.type, click.File):
        return "job.yaml"
    if isinstance(parameter.type, click.Path):
        return "data.csv" if parameter.required else "out.safetensors"
    return "1" if isinstance(parameter.type, click.IntRange) else "a"


def _is_clean(result):
    """Whether a command ended as commands do: with one of the exit codes, and with words if with an error."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in set(ExitCode)
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(("command", "words", "parameter"), PARAMETERS)
def test_odd_text_ends_in_words(nabla, agreeable, command, words, parameter):
    """Bytes that are no text, control characters, NUL, text without end, numbers beyond all bounds."""
    for text in TEXTS:
        result = _is_clean(nabla(*_command_line(command, words, agreeable.address, parameter, text)))
        if "\0" in text:
            assert result.exit_code == ExitCode.INVALID
            assert "NUL" in result.stderr


def _odd_files(folder):
    """Things that have a name and are not files, and names that nothing can have; those with a pipe's ending last."""
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nothing")
    (folder / "empty").touch()
    (folder / "unreadable").touch(mode=0)
    (folder / "latin\udce9.csv").write_text("1,2\n")
    (folder / "new\nline\x1b[31m.csv").write_text("1,2\n")
    with closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind("socket")
    names = sorted(path.name for path in folder.iterdir())
    os.mkfifo("pipe")
    return [*names, "empty/inside", "missing/inside", "n" * 300, "n/" * 3000, "/dev/null", "/proc/self/mem"]


@pytest.mark.parametrize(
    ("command", "words", "parameter"), [each for each in PARAMETERS if _takes_file(each.values[2])]
)
def test_odd_files_end_in_words(nabla, agreeable, tmp_path, command, words, parameter):
    """Folders, loops of links, sockets, devices, names too long and names in no encoding."""
    names = _odd_files(tmp_path)
    # A job file may come through a pipe, and opening one waits for the other end, as with every program.
    pipes = [] if isinstance(parameter.type, click.File) else ["pipe"]
    for name in [*names, *pipes]:
        _is_clean(nabla(*_command_line(command, words, agreeable.address, parameter, name)))


@pytest.mark.parametrize("name", ["pipe", "/dev/null", "/dev/fd/0"])
@pytest.mark.parametrize("words", [("dataset", "add"), ("model", "predict")])
def test_data_from_a_pipe_are_refused_with_what_to_give(nabla, agreeable, words, name):
    """Neither form nor size can be known; nobody waits for the other end."""
    os.mkfifo("pipe")
    result = nabla(*words, "a", name)
    assert (result.exit_code, agreeable.calls) == (ExitCode.INVALID, [])
    assert name == "/dev/fd/0" or f"Error: {name}: This is a pipe or a device" in result.stderr


@pytest.mark.parametrize("name", ["pipe", "link", "device"])
def test_an_export_replaces_only_files(nabla, agreeable, name):
    """Not even with --overwrite: what is a pipe or a device stays one."""
    os.mkfifo("pipe.safetensors")
    Path("link.safetensors").symlink_to("pipe.safetensors")
    Path("device.safetensors").symlink_to(os.devnull)
    before = {each: Path(each).stat().st_mode for each in ("pipe.safetensors", os.devnull)}
    result = nabla("model", "export", "a", f"{name}.safetensors", "--overwrite")
    assert result.exit_code == ExitCode.INVALID
    assert {each: Path(each).stat().st_mode for each in before} == before
    assert Path("link.safetensors").is_symlink()


def test_a_file_whose_name_is_no_text_is_a_file_like_others(agreeable):
    """As real bytes on a real command line: its bytes are sent, and its name with what can be read of it."""
    Path(os.fsdecode(b"latin\xe9.csv")).write_text("1,2\n")
    command = [*map(os.fsencode, NABLA), b"--server", agreeable.address.encode(), b"dataset", b"add", b"x"]
    done = subprocess.run([*command, b"latin\xe9.csv"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    (requests,) = agreeable.requests("AddDataset")
    assert requests is not None


@pytest.mark.parametrize(
    "server",
    [
        "latin\udce9:1",
        "[::1",
        ":",
        "127.0.0.1:99999",
        "http://x",
        "dns:///",
        "unix:",
        "x" * 5000,
        "a b:1",
        "a\n:1",
    ],
)
def test_an_odd_address_of_the_service_ends_in_words(nabla, server):
    """Whatever it is, the command ends as one whose service cannot be reached, or which was called wrongly."""
    for arguments, address in ((("--server", server), None), ((), server)):
        result = _is_clean(nabla(*arguments, "job", "cancel", "a", address=address))
        assert result.exit_code in {ExitCode.UNREACHABLE, ExitCode.INVALID, ExitCode.REFUSED}
        assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("words", "redirection", "exit_code", "error"),
    [
        (
            "--help",
            ">/dev/full",
            ExitCode.INVALID,
            "Error: Standard output cannot be written: No space left on device.\n",
        ),
        (
            "job list",
            ">/dev/full",
            ExitCode.INVALID,
            "Error: Standard output cannot be written: No space left on device.\n",
        ),
        ("job history a -o csv", ">/dev/full", ExitCode.INVALID, "Error: Standard output cannot be written: No space"),
        ("job list", ">&- 2>&- <&-", ExitCode.SUCCESS, ""),
        ("job cancel", "2>/dev/full", ExitCode.INVALID, ""),
        ("job submit -", "<&-", ExitCode.INVALID, "Error: a job file is a mapping with the keys "),
        ("job submit /proc/self/mem", "", ExitCode.INVALID, "Error: /proc/self/mem: Input/output error.\n"),
        ("job submit <(cat job.yaml)", "", ExitCode.SUCCESS, ""),
        ("dataset add x <(cat data.csv)", "", ExitCode.INVALID, "Error: /dev/fd/63: This is a pipe or a device"),
    ],
)
def test_redirected_commands_end_as_others_do(agreeable, words, redirection, exit_code, error):
    """As a shell starts them, to the last flush of the interpreter: a known exit code, and at most one sentence."""
    script = f'"$0" -c "from nablad.cli import main; main()" --server {agreeable.address} {words} {redirection}'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == bool(error)


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=" ".join)
@pytest.mark.parametrize("asked", ["--help", "run"])
def test_streams_that_take_nothing_end_in_words(agreeable, monkeypatch, words, asked):
    """Closed, full, without a reader, and without the letters: for output and for errors."""
    command = {words: command for command, words in COMMANDS}[words]
    arguments = [*words, "--help"]
    if asked == "run":
        if isinstance(command, click.Group):
            return
        arguments = _command_line(command, words, agreeable.address)
    for make in (_closed, _full, _unread, _narrow):
        for name in ("stdout", "stderr"):
            other = {"stdout": "stderr", "stderr": "stdout"}[name]
            with monkeypatch.context() as patched, make() as stream, _recording() as recorded:
                patched.setattr(sys, name, stream)
                patched.setattr(sys, other, recorded)
                with pytest.raises(SystemExit) as ended:
                    main(arguments)
                if stream is None:
                    getattr(sys, name).close()  # the null device, in its place
                recorded.flush()
                words_left = recorded.buffer.getvalue().decode()
            assert (ended.value.code or 0) in set(ExitCode)
            assert "Traceback" not in words_left


class _Stream:
    """A stream for as long as a block lasts; what cannot be written at its end is lost."""

    def __init__(self, stream):
        self._stream = stream

    def __enter__(self):
        return self._stream

    def __exit__(self, *_):
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()


def _closed():
    return _Stream(None)


def _full():
    return _Stream(Path("/dev/full").open("w", encoding="utf-8"))


def _unread():
    reader, writer = os.pipe()
    os.close(reader)
    return _Stream(os.fdopen(writer, "w", encoding="utf-8"))


def _narrow():
    return _Stream(TextIOWrapper(BytesIO(), encoding="latin-1"))


def _recording():
    return _Stream(TextIOWrapper(BytesIO(), encoding="utf-8"))
