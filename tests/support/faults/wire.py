"""Between the operator's processes and the API server: carries every request, and breaks those that a schedule names.

Each process has a line of its own, a port of the loopback. A process dies by its line: from that moment nothing that it
says arrives, as after SIGKILL, and what remains of it in this interpreter is cleared away by whoever started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from .history import Namespace, lines
from .requests import Asked
from .schedule import Fault, Kind, Ledger
from .upstream import Upstream

Raw = dict[str, Any]

DELAY_SECONDS = 0.6
"""Less than half of what a Lease allows here, as seconds are of what it allows in a cluster."""
LATE_SECONDS = 6.0
"""The most that a request of a dead process is under way."""
LAG_SECONDS = 3.0
"""Of a list that need not be consistent."""
AWAY_SECONDS = 3.5
"""Longer than a Lease is kept without renewal."""
FREEZE_SECONDS = 15.0
"""The most that a frozen process sleeps: what it waits for may never come."""


_REFUSALS: dict[Kind, tuple[Any, ...]] = {
    Kind.CONFLICT: (409, "Conflict"),
    Kind.BUSY: (429, "TooManyRequests", {"Retry-After": "1"}),
    Kind.ERROR: (500, "InternalError"),
    Kind.GONE: (410, "Expired"),
    Kind.UNAUTHORIZED: (401, "Unauthorized"),
    Kind.FORBIDDEN: (403, "Forbidden"),
}


@dataclass(frozen=True, slots=True)
class Applied:
    """A write of the operator that the API server took."""

    line: int
    verb: str
    kind: str
    name: str
    answer: Raw


class Wire:
    """All lines of one schedule."""

    def __init__(self, upstream: Upstream, namespace: Namespace, ledger: Ledger) -> None:
        self.upstream = upstream
        self.namespace = namespace
        self.ledger = ledger
        self.applied: list[Applied] = []
        self.trace: list[str] = []
        self.lines: list[Line] = []
        self.away_until = 0.0
        self.under_way = 0
        """Requests that a fault holds."""
        self._late: set[asyncio.Task[Any]] = set()

    @property
    def striking(self) -> bool:
        """A fault is under way. What is done to a watch is not counted: the operator's lists make up for it."""
        away = asyncio.get_running_loop().time() < self.away_until
        return away or self.under_way > 0 or bool(self._late)

    @property
    def looks(self) -> int:
        """Lists of the runs, one of which is a part of each resync."""
        return self.ledger.counts["list-SweepRun"]

    async def line(self) -> Line:
        made = Line(self, len(self.lines))
        self.lines.append(made)
        await made.open()
        return made

    def later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def close(self) -> None:
        for line in self.lines:
            await line.close()
        for task in list(self._late):
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    async def settled(self) -> None:
        """No request is still under way by itself."""
        await asyncio.gather(*list(self._late))


class Line:
    def __init__(self, wire: Wire, number: int) -> None:
        self.wire = wire
        self.number = number
        self.url = ""
        self.dead = asyncio.Event()
        self.freeze: Callable[[], Callable[[], None]] | None = None
        """Stops the process; what it gives lets it go on."""
        self._revision: int | None = None
        """Of the snapshot that the pass under way reads."""
        self._open: dict[int, web.BaseRequest] = {}
        self._runner: web.ServerRunner | None = None

    async def open(self) -> None:
        server = web.Server(self._serve, access_log=None)  # type: ignore[arg-type]
        self._runner = web.ServerRunner(server, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        self.die()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def die(self) -> None:
        self.dead.set()
        self.hang_up()

    def hang_up(self) -> None:
        for request in list(self._open.values()):
            _abort(request)

    # -- one request ---------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._unreachable():
            return _abort(request)
        self._open[id(request)] = request
        try:
            asked = await Asked.of(request)
            if asked.label == "get-SweepRun":
                self._revision = None  # another pass begins
            fault = self.wire.ledger.next(asked.label)
            self.wire.trace.append(f"{self.number} {asked.label}#{self.wire.ledger.counts[asked.label]} {fault or ''}")
            if asked.verb == "watch":
                return await self._watch(asked, request, fault)
            if fault is None:
                return await self._answer(asked, request)
            self.wire.under_way += 1
            try:
                return await self._strike(fault, asked, request)
            finally:
                self.wire.under_way -= 1
        except (ConnectionError, aiohttp.ClientConnectionError):
            return _abort(request)
        finally:
            self._open.pop(id(request), None)

    def _unreachable(self) -> bool:
        return self.dead.is_set() or asyncio.get_running_loop().time() < self.wire.away_until

    async def _answer(self, asked: Asked, request: web.BaseRequest) -> web.StreamResponse:
        status, headers, body = await self._forward(asked)
        return _abort(request) if self._unreachable() else web.Response(status=status, headers=headers, body=body)

    async def _forward(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        query = self._dated(asked)
        async with self.wire.upstream.stream(
            asked.method, asked.path, query, headers=asked.headers, body=asked.body or None
        ) as answer:
            body = await answer.read()
            if asked.writes and answer.status < 300:
                self.wire.applied.append(Applied(self.number, asked.verb, asked.kind, asked.name, json.loads(body)))
            headers = {name: answer.headers[name] for name in ("Content-Type", "Retry-After") if name in answer.headers}
            return answer.status, headers, body

    def _dated(self, asked: Asked) -> dict[str, str]:
        """A list that need not be consistent shows what was there before; so does one of a pass that is out of date."""
        if asked.verb != "list" or "continue" in asked.query or asked.bell:
            return asked.query
        revision = self._revision if asked.kind in ("Job", "PyTorchJob", "Pod") else None
        if asked.query.get("resourceVersion") == "0":
            before = asyncio.get_running_loop().time() - LAG_SECONDS
            known = self.wire.namespace.revisions
            older = (one.number for one in reversed(known) if one.told < before)
            revision = next(older, known[0].number if known else None)
        if revision is None:
            return asked.query
        return {**asked.query, "resourceVersion": str(revision), "resourceVersionMatch": "Exact"}

    # -- faults --------------------------------------------------------------------------------------------------------

    async def _strike(self, fault: Fault, asked: Asked, request: web.BaseRequest) -> web.StreamResponse:
        match fault.kind:
            case Kind.KILL_BEFORE:
                self.die()
            case Kind.KILL_AFTER:
                await self._forward(asked)
                self.die()
            case Kind.LATE:
                self.die()
                self.wire.later(self._arrive_late(fault, asked))
            case Kind.CUT:
                await self._forward(asked)
            case Kind.AWAY:
                self.wire.away_until = asyncio.get_running_loop().time() + AWAY_SECONDS
                for line in self.wire.lines:
                    line.hang_up()
            case refused if refused in _REFUSALS:
                return _refusal(*_REFUSALS[refused])
            case Kind.DELAY:
                await asyncio.sleep(DELAY_SECONDS)
                return await self._answer(asked, request)
            case Kind.FREEZE:
                return await self._frozen(fault, asked, request)
            case Kind.STALE | Kind.SNAPSHOT:
                return await self._past(fault, asked, request)
            case _:
                raise AssertionError(f"{fault} does not strike a {asked.verb}")
        return _abort(request)

    async def _arrive_late(self, fault: Fault, asked: Asked) -> None:
        await self._others_write(fault.back, within=LATE_SECONDS)
        await self._forward(asked)

    async def _frozen(self, fault: Fault, asked: Asked, request: web.BaseRequest) -> web.StreamResponse:
        """What was read is delivered to a process that sleeps; what is to be written leaves it when it wakes."""
        assert self.freeze is not None
        answer = None if asked.writes else await self._forward(asked)
        thaw = self.freeze()
        try:
            await self._others_write(fault.back, within=FREEZE_SECONDS)
            status, headers, body = answer if answer is not None else await self._forward(asked)
            return web.Response(status=status, headers=headers, body=body)
        finally:
            asyncio.get_running_loop().call_later(0.05, thaw)

    async def _others_write(self, count: int, *, within: float) -> None:
        """Until other processes have made so many writes to the run and its children."""
        before = len(self.wire.applied)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._of_others(before) < count:  # noqa: ASYNC110  many lines write into it
                    await asyncio.sleep(0.02)

    def _of_others(self, before: int) -> int:
        others = [one for one in self.wire.applied[before:] if one.line != self.number]
        return sum(one.kind not in ("Lease", "Event") for one in others)

    async def _past(self, fault: Fault, asked: Asked, request: web.BaseRequest) -> web.StreamResponse:
        if asked.verb == "list":
            known = self.wire.namespace.revisions
            number = known[-4 * fault.back].number if len(known) >= 4 * fault.back else None
            dated = {"resourceVersion": str(number), "resourceVersionMatch": "Exact"} if number is not None else {}
            return await self._answer(_with_query(asked, {**asked.query, **dated}), request)
        versions = list(self.wire.namespace.versions("SweepRun", asked.name))[: fault.back + 1]
        if len(versions) <= fault.back or versions[fault.back].type == "DELETED":
            return await self._answer(asked, request)
        if fault.kind is Kind.SNAPSHOT:
            # Children that followed that status are not there yet.
            self._revision = versions[fault.back].number
        return web.json_response(versions[fault.back].raw)

    # -- watches -------------------------------------------------------------------------------------------------------

    async def _watch(self, asked: Asked, request: web.BaseRequest, fault: Fault | None) -> web.StreamResponse:
        kind = fault.kind if fault is not None else None
        refused = _REFUSALS.get(kind) if kind is not None else None
        if refused is not None:
            return _refusal(*refused)
        async with self.wire.upstream.stream(asked.method, asked.path, asked.query, headers=asked.headers) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
            told = web.StreamResponse(headers={"Content-Type": "application/json"})
            told.enable_chunked_encoding()
            await told.prepare(request)
            async for line in _altered(lines(answer), kind):
                if self._unreachable():
                    return _abort(request)
                await told.write(line + b"\n")
            if kind is Kind.DEAF:
                await self.dead.wait()  # not even the end is told
            if kind is Kind.CUT:
                return _abort(request)
            await told.write_eof()
            return told


def _altered(told: AsyncIterator[bytes], kind: Kind | None) -> AsyncIterator[bytes]:
    match kind:
        case Kind.BROKEN_410 | Kind.BROKEN_500 | Kind.CUT:
            return _broken(told, {Kind.BROKEN_410: 410, Kind.BROKEN_500: 500}.get(kind))
        case Kind.DROP:
            return _some(told, 2)
        case Kind.DEAF:
            return _some(told, 0)
        case Kind.MERGE:
            return _merged(told)
        case Kind.LAG:
            return _lagging(told)
        case _:
            return told


async def _broken(told: AsyncIterator[bytes], code: int | None) -> AsyncIterator[bytes]:
    """Two events, then an ERROR or just the end."""
    count = 0
    async for line in told:
        yield line
        count += 1
        if count == 2:
            break
    if code is not None:
        status = {"kind": "Status", "code": code, "reason": "Expired", "message": "by the schedule"}
        yield json.dumps({"type": "ERROR", "object": {"metadata": {}, **status}}).encode()


async def _some(told: AsyncIterator[bytes], each: int) -> AsyncIterator[bytes]:
    """Every `each`-th event is lost; 0: all are."""
    count = 0
    async for line in told:
        count += 1
        if each and count % each:
            yield line


async def _lagging(told: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for line in told:
        await asyncio.sleep(DELAY_SECONDS)
        yield line


async def _merged(told: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Held back for a while; of each object the last event only, an ADDED and a DELETED in between untold."""
    held: dict[str, bytes] = {}
    ended = False

    async def collect() -> None:
        nonlocal ended
        async for line in told:
            found = json.loads(line)
            held[found["object"].get("metadata", {}).get("uid", found["type"])] = line
        ended = True

    task = asyncio.create_task(collect())
    try:
        while not ended:
            await asyncio.wait([task], timeout=0.7)
            for line in list(held.values()):
                yield line
            held.clear()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _with_query(asked: Asked, query: dict[str, str]) -> Asked:
    fields = {name: getattr(asked, name) for name in Asked.__slots__}
    return Asked(**{**fields, "query": query})


def _abort(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()  # type: ignore[attr-defined]
    return web.Response(status=503)


def _refusal(code: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return web.json_response({**body, "message": f"{reason} by the schedule"}, status=code, headers=headers)
