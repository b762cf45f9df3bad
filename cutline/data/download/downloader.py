"""Bringing the images of many samples in: what to fetch, what to store, what to write down, when to stop."""

from __future__ import annotations

import hashlib
import queue
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cutline.core.errors import DataError
from cutline.core.files import write_atomically
from cutline.core.records import Sample
from cutline.core.threads import cores
from cutline.data.addresses import ORIGINAL, is_address
from cutline.data.download.fetcher import Fetched, Fetcher, NotFetched
from cutline.data.download.ledger import NAME, Download, DownloadLedger
from cutline.data.download.request import IS_TRANSIENT
from cutline.data.image_store import ImageStore
from cutline.data.problem import Problem
from cutline.images.open import ImageFacts, ImageProblem, read_bytes

if TYPE_CHECKING:
    from cutline.data.download.settings import DownloadSettings

_ADVICE = {
    "dns": "Is this machine's name server up?",
    "connection": "Is the network up?",
    "timeout": "Is the network up? Fewer connections or a longer timeout_s may help.",
    "refused": "The server may be turning this machine away: fewer connections, or another user_agent.",
    "too_many_requests": "Lower per_host.",
}


class Downloader:
    """Brings images in and remembers them in the ledger.

    Attributes:
        requests: made in this run; ``bytes``: received in this run.
        store: stores the images.
    """

    def __init__(
        self,
        settings: DownloadSettings,
        store: ImageStore,
        workers: int | None = None,
        ledger: Path | None = None,
        known: Path | None = None,
    ):
        """``ledger``: another place for it than the dataset's folder; ``known``: a ledger that it begins with."""
        self.settings = settings
        self.store = store
        self.ledger = DownloadLedger(ledger or store.folder / NAME, known)
        self.workers = workers or cores()
        self.requests = 0
        self.bytes = 0
        self._streak: list[str] = []  # addresses of the images that failed since the last success
        self._reasons: Counter[str] = Counter()  # of the streak

    def close(self) -> None:
        self.ledger.close()

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- what is known

    def find(self, sample: Sample) -> tuple[Sample, ImageFacts | Problem]:
        """What became of a sample's image: with the address where it was found, or the last failure."""
        row = None
        for address in candidates(sample):
            row = self.ledger.find(address)
            if row and row.state == "done" and row.facts:
                return replace(sample, image=address), row.facts
        reason, detail = (row.reason, f"{row.address}: {row.detail}") if row else ("connection", "never fetched")
        return sample, Problem(id=sample.id, reason=reason, detail=detail)

    def _missing(self, sample: Sample) -> str | None:
        """The address to fetch next for a sample; None when there is nothing more to do for it."""
        for address in candidates(sample):
            row = self.ledger.find(address)
            if row is None or row.state == "again":
                return address
            if row.state == "done":
                if row.facts and row.made == self.store.made and self.store.holds(row.facts, row.bytes):
                    return None
                return None if self._from_original(row) else address
            if IS_TRANSIENT.get(row.reason, False):  # the better address is there, only not now: --retry failed
                return None
        return None

    def _from_original(self, row: Download) -> bool:
        """Makes the image again from the file that was kept, for other settings of resize."""
        path = self._original(row.sha256)
        if not path.is_file():
            return False
        try:
            facts = self.store(read_bytes(path), row.address)
        except ImageProblem:
            return False
        self.ledger.record(replace(row, facts=facts, made=self.store.made, tries=0))
        return True

    def _original(self, sha256: str) -> Path:
        return self.store.folder / f"originals/{sha256[:2]}/{sha256}"

    # ---- bringing in

    def run(self, samples: Iterable[Sample], step: Callable[[], None] = lambda: None) -> None:
        """Fetches, checks and stores what isn't there yet; the ledger then knows each address.

        Args:
            step: called once for each sample that is finished.

        Raises:
            DataError: images fail without a single success, or the folder can't be written.
        """
        rest = iter(samples)
        waiting: dict[str, list[Sample]] = {}
        finished: queue.SimpleQueue[tuple[Fetched, Future[tuple[ImageFacts, str]]]] = queue.SimpleQueue()
        storing = 0
        most = 4 * self.workers + 16  # bodies in memory: enough to keep the threads busy
        window = max(1000, 20 * self.settings.connections)  # addresses in memory: enough to find hosts with room
        exhausted = False

        def want(sample: Sample, first: bool = False) -> None:  # first: it was wanted before, and goes to the front
            address = self._missing(sample)
            if address is None:
                if first:
                    self._account(sample)
                step()
            elif address in waiting:
                waiting[address].append(sample)
            else:
                waiting[address] = [sample]
                fetcher.add(address, first=first)

        def settled(address: str) -> None:
            for sample in waiting.pop(address):
                want(sample, first=True)

        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="store")
        with Fetcher(self.settings) as fetcher:
            try:
                while True:
                    while not exhausted and fetcher.unfinished + storing < window:
                        sample = next(rest, None)
                        exhausted = sample is None
                        if sample is not None and is_address(sample.image):
                            want(sample)
                        elif sample is not None:
                            step()
                    if not (waiting or storing):
                        break
                    for answer in fetcher.turn(0.02 if storing else 0.5, start=storing < most):
                        self.requests += answer.tries
                        if isinstance(answer, Fetched):
                            storing += 1
                            future = pool.submit(self._store, answer)
                            future.add_done_callback(lambda done, answer=answer: finished.put((answer, done)))  # type: ignore[misc]
                        else:
                            self._record_failure(answer)
                            settled(answer.address)
                    while not finished.empty():
                        fetched, stored = finished.get()
                        storing -= 1
                        self._record(fetched, stored)
                        settled(fetched.address)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        self._nothing_answered()

    def _store(self, answer: Fetched) -> tuple[ImageFacts, str]:
        facts = self.store(answer.body, answer.address)
        digest = facts.sha256 if not self.store.resize else hashlib.sha256(answer.body).hexdigest()
        if self.settings.keep and self.store.resize:
            self._keep(digest, answer.body)
        return facts, digest

    def _keep(self, digest: str, body: bytes) -> None:
        target = self._original(digest)
        if target.exists():
            return
        try:
            write_atomically(target, body, durable=False)
        except OSError as error:
            raise DataError(
                f"{target.parent} can't be written: {error.strerror}.",
                "Make room there; preparing goes on where it stopped.",
            ) from error

    # ---- writing down

    def _record(self, answer: Fetched, stored: Future[tuple[ImageFacts, str]]) -> None:
        self.bytes += len(answer.body)
        try:
            facts, digest = stored.result()
        except ImageProblem as problem:
            self.ledger.record(
                Download(
                    address=answer.address, state="failed", tries=answer.tries, reason=problem.reason,
                    detail=problem.detail, status=200, bytes=len(answer.body), found_at=answer.found_at,
                )
            )  # fmt: skip
            return
        self.ledger.record(
            Download(
                address=answer.address, state="done", tries=answer.tries, status=200, bytes=len(answer.body),
                sha256=digest, found_at=answer.found_at, made=self.store.made, facts=facts,
            )
        )  # fmt: skip

    def _record_failure(self, answer: NotFetched) -> None:
        self.ledger.record(
            Download(
                address=answer.address, state="failed", tries=answer.tries, reason=answer.reason,
                detail=answer.detail, status=answer.status,
            )
        )  # fmt: skip

    # ---- when to stop

    def _account(self, sample: Sample) -> None:
        """Counts a sample that was finished in this run.

        Raises:
            DataError: so many failed one after the other that something else must be wrong.
        """
        row = None
        for address in candidates(sample):
            row = self.ledger.find(address)
            if row and row.state == "done":
                self._streak.clear()
                self._reasons.clear()
                return
        if row is None:
            return
        self._streak.append(row.address)
        self._reasons[row.reason] += 1
        if self.settings.stop_after and len(self._streak) >= self.settings.stop_after:
            self._stop(f"The last {len(self._streak)} images all failed")

    def _nothing_answered(self) -> None:
        if (
            self._streak
            and all(IS_TRANSIENT.get(reason) for reason in self._reasons)
            and not self.ledger.counts()["done"]
        ):
            self._stop(f"None of {len(self._streak)} images could be fetched")

    def _stop(self, problem: str) -> None:
        """Gives up without blaming the addresses: those that failed for a passing reason are tried in the next run."""
        example = self.ledger.find(self._streak[-1])
        for address in self._streak:
            row = self.ledger.find(address)
            if row and IS_TRANSIENT.get(row.reason):
                self.ledger.again(address)
        counted = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common(3))
        advice = _ADVICE.get(self._reasons.most_common(1)[0][0], "Are the addresses still good?")
        raise DataError(
            f"{problem}: {counted} (the last: {example and example.address}: {example and example.detail}).",
            f"{advice} Started again it goes on where it stopped; stop_after in [data.steps.download] changes when.",
        )


def candidates(sample: Sample) -> tuple[str, ...]:
    """The addresses to try for a sample, best first."""
    original = sample.extra.get(ORIGINAL)
    return (sample.image,) if original is None or original == sample.image else (sample.image, str(original))
