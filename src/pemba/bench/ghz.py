"""ghz as the source of load: prepared requests in, figures out.

It counts statuses; it does not look at answers, which is why those are compared besides (`answers`).
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pemba.bench.figures import Figures
from pemba.dev.process import StartError, kill_family, log_tail, spawn
from pemba.dev.ready import write_private

Request = Mapping[str, Any]
"""A request in proto3 JSON."""

_GRACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """A method of a server: `method` as package.Service/Method."""

    address: str
    key: str
    method: str

    @property
    def service(self) -> str:
        return self.method.partition("/")[0]


class Ghz:
    """Runs the program, with its files in `folder`."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder

    async def run(
        self, target: Target, requests: Sequence[Request], *, seconds: float, concurrency: int, rate: int = 0
    ) -> Figures:
        """Send the requests in their order, over and over, for `seconds`; at most `rate` a second, 0: as they go.

        Raises StartError where ghz itself fails; a call that is refused is a status among the figures.
        """
        name = secrets.token_hex(6)
        request_file, metadata, report = (self._folder / f"{name}.{end}" for end in ("requests", "metadata", "report"))
        request_file.write_text(json.dumps(list(requests)))
        write_private(metadata, json.dumps({"authorization": f"Bearer {target.key}"}))  # not for the command line
        command = [
            str(self._program), "--insecure", "--call", target.method,
            "--protoset", str(self._protoset(target.service)), "--data-file", str(request_file),
            "--metadata-file", str(metadata), "--disable-template-functions", "--disable-template-data",
            "--concurrency", str(concurrency), "--duration", f"{int(seconds * 1000)}ms", "--duration-stop", "wait",
            "--rps", str(rate), "--timeout", "20s", "--format", "json", "--output", str(report), target.address,
        ]  # fmt: skip
        await self._finish(command, seconds + _GRACE_SECONDS)
        return parse(report.read_text())

    async def _finish(self, command: Sequence[str], seconds: float) -> None:
        log = self._folder / "ghz.log"
        process = spawn(command, log=log, environment=os.environ)
        try:
            code = await asyncio.to_thread(process.wait, seconds)
        finally:
            kill_family(process)
        if code != 0:
            raise StartError(f"ghz failed{log_tail(log)}")

    def _protoset(self, service: str) -> Path:
        file = self._folder / f"{service}.protoset"
        if not file.exists():
            file.write_bytes(descriptors(service))
        return file


def descriptors(service: str) -> bytes:
    """A FileDescriptorSet of the file that defines `service` and all it imports, from the generated modules."""
    found: dict[str, FileDescriptor] = {}

    def collect(file: FileDescriptor) -> None:
        if file.name not in found:
            for imported in file.dependencies:
                collect(imported)
            found[file.name] = file  # after its imports, as protoc does

    collect(descriptor_pool.Default().FindFileContainingSymbol(service))
    files = FileDescriptorSet()
    for file in found.values():
        file.CopyToProto(files.file.add())
    return files.SerializeToString()


def parse(report: str) -> Figures:
    """ghz's JSON report, whose times are nanoseconds; percentiles are of what was answered OK."""
    said = json.loads(report)
    statuses: dict[str, int] = said.get("statusCodeDistribution") or {}
    percentiles = {each["percentage"]: each["latency"] / 1e6 for each in said.get("latencyDistribution") or ()}
    seconds = said["total"] / 1e9
    return Figures(
        count=said["count"],
        rate=statuses.get("OK", 0) / seconds if seconds else 0.0,
        p50=percentiles.get(50, 0.0),
        p95=percentiles.get(95, 0.0),
        p99=percentiles.get(99, 0.0),
        statuses=statuses,
    )
