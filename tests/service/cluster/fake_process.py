"""A cluster process without Ray: speaks the contract, and does what the test's plan says. Run by link's tests.

The plan is a file with one line for each start: `ready`, or `elsewhere` if another process shall listen in its place;
anything else is said instead, and the process ends.
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
    """A node of four CPUs; what a fleet does is decided by the id of its job."""

    def __init__(self, stopped: Path) -> None:
        self._stopped = stopped

    async def ListNodes(self, request: Any, context: Any) -> cluster_pb.ListNodesResponse:  # noqa: N802 (gRPC's name)
        return cluster_pb.ListNodesResponse(nodes=[cluster_pb.Node(cpus=CPUS, free_cpus=CPUS)])

    async def RunFleet(self, requests: AsyncIterator[Any], context: Any) -> None:  # noqa: N802 (gRPC's name)
        step = await anext(aiter(requests))
        await context.write(cluster_pb.RunFleetResponse(reserved=step.reserve.workers <= CPUS))
        if step.reserve.workers > CPUS:
            return
        async for step in requests:
            match step.launch.assignment.job_id if step.HasField("launch") else "":
                case "lost":
                    end = cluster_pb.FleetEnd(
                        reason="the parameter server was lost: oh", last_error_lines="a\nb", cause="parameter_server"
                    )
                    await context.write(cluster_pb.RunFleetResponse(lost=end))
                case "failed":
                    end = cluster_pb.FleetEnd(reason="a worker failed: oh", last_error_lines="c")
                    await context.write(cluster_pb.RunFleetResponse(failed=end))
                case "":
                    say(f"it was told of {step.workers} workers")
                    os._exit(1)
                case job_id:
                    await context.write(cluster_pb.RunFleetResponse(address=f"{job_id}:1"))
        self._stopped.touch()


def say(sentence: str) -> None:
    os.write(sys.stdout.fileno(), f"{sentence}\n".encode())


def end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def follow(plan: Path) -> None:
    said, _, rest = plan.read_text().partition("\n")
    plan.write_text(rest)
    if said == "elsewhere":
        serve_elsewhere(sys.argv)
    plan.with_name("pid").write_text(str(os.getpid()))
    threading.Thread(target=end_with_input, daemon=True).start()
    if said != "ready":
        if said:
            say(said)
        os._exit(3)


def serve_elsewhere(arguments: list[str]) -> None:
    """Lets another process serve, which ends with this one's input."""
    Path(arguments[1]).write_text("ready\n")
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        say(other.stdout.readline().strip())
    os._exit(0)


async def serve(socket: str, servicer: Servicer) -> None:
    server = grpc.aio.server()
    cluster_grpc.add_ClusterServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    say("ready")
    await server.wait_for_termination()


def main() -> None:
    plan = Path(sys.argv[1])
    follow(plan)
    asyncio.run(serve(sys.argv[sys.argv.index("--socket") + 1], Servicer(plan.with_name("stopped"))))


main()
