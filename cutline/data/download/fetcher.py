"""Fetching many addresses at once over kept-alive connections: libcurl does the transfers, this file the
queues, pauses and limits.

Per host only so many at a time; passing faults are tried again after a growing, jittered pause, or when the server
says; redirects are followed here, each as a request of its own, so that they obey the same limits. The machine that a
name leads to is judged when its socket is opened, so neither a redirect nor a name server that changes its answer gets
round it.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cutline.data import addresses
from cutline.data.download.request import (
    IS_TRANSIENT,
    REDIRECTS,
    FetchPolicy,
    Transfer,
    classify_code,
    classify_status,
    load_curl,
    new_handle,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A body that came whole, with status 200.

    Attributes:
        address: what was asked for; ``found_at``: where it was, after redirects.
        tries: requests that it took, redirects not counted.
    """

    address: str
    found_at: str
    body: bytes
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFetched:
    """An address that gave nothing.

    Attributes:
        reason: a key of ``IS_TRANSIENT``.
        status: of the last answer; 0 when there was none.
    """

    address: str
    reason: str
    detail: str
    tries: int
    status: int = 0


@dataclass(slots=True)
class _Job:
    address: str
    target: str
    tries: int = 1
    hops: int = 0


@dataclass(slots=True)
class _Host:
    waiting: deque[_Job] = field(default_factory=deque)
    active: int = 0
    not_before: float = 0.0
    listed: bool = False


class Fetcher:
    """Fetches what is added; every ``turn`` moves the transfers on and hands out what is finished, in any order.

    Example:
        with Fetcher(settings) as fetcher:
            fetcher.add("https://example.org/1.jpg")
            while fetcher.unfinished:
                for answer in fetcher.turn(1.0): ...
    """

    def __init__(self, policy: FetchPolicy):
        self._curl = load_curl()
        self.policy = policy
        self._multi = self._curl.CurlMulti()
        self._multi.setopt(self._curl.M_MAXCONNECTS, policy.connections + 16)
        self._idle: list[Any] = []
        self._flying: dict[Any, tuple[_Job, Transfer]] = {}
        self._hosts: dict[str, _Host] = {}
        self._ready: deque[str] = deque()
        self._later: list[tuple[float, int, str, _Job | None]] = []  # when, tie-breaker, host, job (None: host's pause)
        self._number = itertools.count()
        self._answers: list[Fetched | NotFetched] = []
        self._chance = random.Random()
        self.unfinished = 0

    def add(self, address: str, first: bool = False) -> None:
        """Puts an address on the list of its host, at its end or at its front."""
        self.unfinished += 1
        try:
            self._queue(_Job(address, addresses.normal(address)), first)
        except addresses.BadAddress as error:
            self._answer(NotFetched(address=address, reason="bad_address", detail=str(error), tries=0))

    def turn(self, wait_s: float, start: bool = True) -> list[Fetched | NotFetched]:
        """Moves all transfers on, waiting for news at most ``wait_s`` seconds.

        Args:
            start: False begins no new request, only continues those that are under way.
        """
        self._wake()
        if start:
            self._start()
        if self._flying:
            self._multi.perform()
            self._collect()
            if not self._answers and wait_s > 0 and self._multi.select(min(wait_s, self._next_wake())) == -1:
                time.sleep(min(wait_s, 0.005))  # a name is being looked up: there is no socket to wait for
        elif not self._answers and wait_s > 0:
            time.sleep(min(wait_s, self._next_wake(), 0.2))
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        for handle in [*self._flying, *self._idle]:
            if handle in self._flying:
                self._multi.remove_handle(handle)
                self._flying[handle][1].close_sockets()
            handle.close()
        self._flying.clear()
        self._idle.clear()
        self._multi.close()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- who is next

    def _queue(self, job: _Job, first: bool = True) -> None:
        name = addresses.host_of(job.target)
        waiting = self._hosts.setdefault(name, _Host()).waiting
        waiting.appendleft(job) if first else waiting.append(job)
        self._offer(name)

    def _offer(self, name: str) -> None:
        """Lists a host as ready when it has work, room, and no pause."""
        host = self._hosts[name]
        if host.waiting and not host.listed and host.active < self.policy.per_host:
            pause = host.not_before - time.monotonic()
            if pause <= 0:
                host.listed = True
                self._ready.append(name)
        elif not host.waiting and not host.active and host.not_before <= time.monotonic():
            del self._hosts[name]  # a list of a million hosts must not stay in memory

    def _start(self) -> None:
        while self._ready and len(self._flying) < self.policy.connections:
            name = self._ready.popleft()
            host = self._hosts[name]
            host.listed = False
            job = host.waiting.popleft()
            host.active += 1
            handle = self._idle.pop() if self._idle else new_handle(self._curl, self.policy)
            self._flying[handle] = (job, Transfer(self._curl, handle, job.target, self.policy))
            self._multi.add_handle(handle)
            self._offer(name)

    def _wake(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, name, job = heapq.heappop(self._later)
            if job is not None:
                self._queue(job)
            elif name in self._hosts:
                self._offer(name)

    def _next_wake(self) -> float:
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else 1.0

    # ---- what came of it

    def _collect(self) -> None:
        while True:
            waiting, fine, failed = self._multi.info_read()
            for handle in fine:
                self._end(handle, 0, "")
            for handle, code, message in failed:
                self._end(handle, code, message)
            if not waiting:
                return

    def _end(self, handle: Any, code: int, message: str) -> None:
        job, transfer = self._flying.pop(handle)
        transfer.close_sockets()
        self._multi.remove_handle(handle)
        self._idle.append(handle)
        name = addresses.host_of(job.target)
        self._hosts[name].active -= 1
        try:
            self._judge(transfer, job, name, code, message)
        finally:
            self._offer(name)

    def _judge(self, transfer: Transfer, job: _Job, name: str, code: int, message: str) -> None:
        code = 0 if transfer.told else code
        if not code and transfer.status in REDIRECTS and transfer.location:
            self._follow(job, transfer)
            return
        if not code and transfer.status == 200:
            body = bytes(transfer.body)
            self._answer(Fetched(address=job.address, found_at=job.target, body=body, tries=job.tries))
            return
        reason, detail = transfer.fault or (
            classify_code(self._curl, code, message) if code else classify_status(transfer.status)
        )
        problem = NotFetched(address=job.address, reason=reason, detail=detail, tries=job.tries, status=transfer.status)
        wait = self._pause(transfer, job)
        asked = transfer.retry_after is not None and transfer.status in (429, 503)
        if asked or transfer.status == 429:  # the host as a whole is asked too much
            host = self._hosts[name]
            host.not_before = max(host.not_before, time.monotonic() + min(wait, self.policy.longest_wait_s))
            heapq.heappush(self._later, (host.not_before, next(self._number), name, None))
        if not IS_TRANSIENT[reason] or job.tries >= self.policy.tries or wait > self.policy.longest_wait_s:
            self._answer(problem)
            return
        job.tries += 1
        job.hops, job.target = 0, addresses.normal(job.address)
        heapq.heappush(self._later, (time.monotonic() + wait, next(self._number), name, job))

    def _pause(self, transfer: Transfer, job: _Job) -> float:
        """Seconds to wait before the next try: what the server asks for, else twice as long each time, with jitter."""
        own = self.policy.backoff_s * 2 ** (job.tries - 1) * self._chance.uniform(0.5, 1.5)
        if transfer.status in (429, 503) and transfer.retry_after is not None:
            return float(transfer.retry_after) + self._chance.uniform(0, 0.1)
        return float(min(own, self.policy.longest_wait_s))

    def _follow(self, job: _Job, transfer: Transfer) -> None:
        job.hops += 1
        if job.hops > self.policy.max_redirects:
            detail = f"more than {self.policy.max_redirects}"
        else:
            try:
                job.target = addresses.joined(job.target, transfer.location)
                self._queue(job)
                return
            except addresses.BadAddress as error:
                detail = str(error)
        self._answer(
            NotFetched(address=job.address, reason="redirects", detail=detail, tries=job.tries, status=transfer.status)
        )

    def _answer(self, answer: Fetched | NotFetched) -> None:
        self.unfinished -= 1
        self._answers.append(answer)
