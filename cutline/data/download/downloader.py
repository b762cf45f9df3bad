"""Bringing the images of many samples in: what to fetch, what to store, what to write down, when to stop."""

from __future__ import annotations

import hashlib
import queue
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
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


class _Batch:
    """One call of ``Downloader.run``: its samples, and those whose images are on the way.

    Attributes:
        samples: those that are still to come.
        step: called once for each sample that is finished.
        waiting: address → samples that wait for it.
        stored: bodies that a thread has stored, or failed to.
        storing: how many bodies the threads have.
        exhausted: no samples are to come.
    """

    def __init__(self, samples: Iterable[Sample], step: Callable[[], None]):
        self.samples = iter(samples)
        self.step = step
        self.waiting: dict[str, list[Sample]] = {}
        self.stored: queue.SimpleQueue[tuple[Fetched, Future[tuple[ImageFacts, str]]]] = queue.SimpleQueue()
        self.storing = 0
        self.exhausted = False

    def put(self, answer: Fetched, done: Future[tuple[ImageFacts, str]]) -> None:
        self.stored.put((answer, done))


class Downloader:
    """Brings images in and remembers them in the ledger.

    Attributes:
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
        """``ledger``: its file, by default in the dataset's folder; ``known``: a ledger to copy what is known from."""
        self.settings = settings
        self.store = store
        self.ledger = DownloadLedger(ledger or store.folder / NAME, known)
        self.workers = workers or cores()
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
        batch = _Batch(samples, step)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="store")
        with Fetcher(self.settings) as fetcher:
            try:
                while self._fill(batch, fetcher):
                    self._turn(batch, fetcher, pool)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        self._nothing_answered()

    def _fill(self, batch: _Batch, fetcher: Fetcher) -> bool:
        """Takes samples until enough addresses are under way; whether anything is left to do."""
        window = max(1000, 20 * self.settings.connections)  # addresses in memory: enough to find hosts with room
        while not batch.exhausted and fetcher.unfinished + batch.storing < window:
            sample = next(batch.samples, None)
            if sample is None:
                batch.exhausted = True
            elif is_address(sample.image):
                self._request(batch, fetcher, sample)
            else:
                batch.step()
        return bool(batch.waiting or batch.storing)

    def _turn(self, batch: _Batch, fetcher: Fetcher, pool: ThreadPoolExecutor) -> None:
        """Moves the transfers on, and records what was fetched or stored meanwhile."""
        most = 4 * self.workers + 16  # bodies in memory: enough to keep the threads busy
        for answer in fetcher.turn(0.02 if batch.storing else 0.5, start=batch.storing < most):
            if isinstance(answer, Fetched):
                batch.storing += 1
                pool.submit(self._store, answer).add_done_callback(partial(batch.put, answer))
            else:
                self._record_failure(answer)
                self._settle(batch, fetcher, answer.address)
        while not batch.stored.empty():
            fetched, stored = batch.stored.get()
            batch.storing -= 1
            self._record(fetched, stored)
            self._settle(batch, fetcher, fetched.address)

    def _request(self, batch: _Batch, fetcher: Fetcher, sample: Sample, again: bool = False) -> None:
        """Asks for a sample's next address; ``again``: one of its addresses is settled, and the next goes first."""
        address = self._missing(sample)
        if address is None:
            if again:
                self._account(sample)
            batch.step()
        elif address in batch.waiting:
            batch.waiting[address].append(sample)
        else:
            batch.waiting[address] = [sample]
            fetcher.add(address, first=again)

    def _settle(self, batch: _Batch, fetcher: Fetcher, address: str) -> None:
        for sample in batch.waiting.pop(address):
            self._request(batch, fetcher, sample, again=True)

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
                "Free some space and prepare again; it resumes.",
            ) from error

    # ---- writing down

    def _record(self, answer: Fetched, stored: Future[tuple[ImageFacts, str]]) -> None:
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
            f"{advice} Run it again to resume; [data.steps.download] stop_after says how many failures stop it.",
        )


def candidates(sample: Sample) -> tuple[str, ...]:
    """The addresses to try for a sample, best first."""
    original = sample.extra.get(ORIGINAL)
    return (sample.image,) if original is None or original == sample.image else (sample.image, str(original))
