"""Fake cluster process without Ray, which follows the plan of a test of the client.

The plan is a file with one line for each start: `ready`, or `elsewhere` if another process shall listen in its place;
anything else is line instead, and the process ends.
"""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import cluster_pb2_grpc as cluster_grpc

CPUS = 4


class Servicer(cluster_grpc.ClusterServiceServicer):
    """A node of four CPUs; the id of a job decides how its processes end."""

    def __init__(self, stopped: Path) -> None:
        self._stopped = stopped

    async def ListNodes(self, request: Any, context: Any) -> cluster_pb.ListNodesResponse:  # noqa: N802 (gRPC's name)
        return cluster_pb.ListNodesResponse(nodes=[cluster_pb.Node(cpus=CPUS, free_cpus=CPUS)])

    async def RunJobProcesses(self, requests: AsyncIterator[Any], context: Any) -> None:  # noqa: N802 (gRPC's name)
        step = await anext(aiter(requests))
        await context.write(cluster_pb.RunJobProcessesResponse(reserved=step.reserve.workers <= CPUS))
        if step.reserve.workers > CPUS:
            return
        async for step in requests:
            match step.launch.assignment.job_id if step.HasField("launch") else "":
                case "lost":
                    end = cluster_pb.JobProcessesEnd(
                        reason="the parameter server was lost: oh", last_error_lines="a\nb", cause="parameter_server"
                    )
                    await context.write(cluster_pb.RunJobProcessesResponse(lost=end))
                case "failed":
                    end = cluster_pb.JobProcessesEnd(reason="a worker failed: oh", last_error_lines="c")
                    await context.write(cluster_pb.RunJobProcessesResponse(failed=end))
                case "":
                    report(f"it was scaled to {step.workers} workers")
                    os._exit(1)
                case job_id:
                    await context.write(cluster_pb.RunJobProcessesResponse(address=f"{job_id}:1"))
        self._stopped.touch()


def report(sentence: str) -> None:
    os.write(sys.stdout.fileno(), f"{sentence}\n".encode())


def end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def follow(plan: Path) -> None:
    line, _, rest = plan.read_text().partition("\n")
    plan.write_text(rest)
    if line == "elsewhere":
        serve_elsewhere(sys.argv)
    plan.with_name("pid").write_text(str(os.getpid()))
    threading.Thread(target=end_with_input, daemon=True).start()
    if line != "ready":
        if line:
            report(line)
        os._exit(3)


def serve_elsewhere(arguments: list[str]) -> None:
    """Lets another process serve, which ends with this one's input."""
    Path(arguments[1]).write_text("ready\n")
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        report(other.stdout.readline().strip())
    os._exit(0)


async def serve(socket: str, servicer: Servicer) -> None:
    server = grpc.aio.server()
    cluster_grpc.add_ClusterServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    report("ready")
    await server.wait_for_termination()


def main() -> None:
    plan = Path(sys.argv[1])
    follow(plan)
    asyncio.run(serve(sys.argv[sys.argv.index("--socket") + 1], Servicer(plan.with_name("stopped"))))


main()
