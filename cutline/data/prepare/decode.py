"""Decoding every image of a source once, on all cores, and storing those that are whole.

Images that were downloaded are known from the ledger of downloads; those in files are decoded here.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from cutline.core.records import Sample
from cutline.core.threads import cores
from cutline.data.addresses import is_address
from cutline.data.image_store import ImageStore
from cutline.data.prepare.decoded import DecodedImages
from cutline.data.problem import Problem
from cutline.images.open import ImageFacts, ImageProblem, container, read_bytes

Outcome = ImageFacts | Problem
_Waiting = tuple[Sample, str, os.stat_result | None, "Future[Outcome] | Outcome"]


class ImageDecoder:
    """Checks images in threads (Pillow lets go of the interpreter while it decodes), a bounded number at a time.

    Attributes:
        decoded: how many images were decoded, rather than known from an earlier run.
    """

    def __init__(
        self,
        store: ImageStore,
        ledger: DecodedImages,
        workers: int | None = None,
        downloaded: Callable[[Sample], tuple[Sample, Outcome]] | None = None,
    ):
        """``downloaded`` tells what became of a sample whose image is an address."""
        self.store = store
        self.ledger = ledger
        self.workers = workers or cores()
        self.downloaded = downloaded
        self.decoded = 0

    def decode(self, samples: Iterable[Sample], step: Callable[[], None]) -> Iterator[tuple[Sample, Outcome]]:
        """Each sample with what is known of its image, in the samples' order.

        Args:
            samples: with the paths of their images.
            step: called once for each sample that is done.

        Raises:
            DataError: the dataset's folder can't be written.
        """
        waiting: deque[_Waiting] = deque()
        unwritten: list[tuple[str, os.stat_result, Outcome]] = []
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="check")
        try:
            for sample in samples:
                waiting.append(self._begin(sample, pool))
                # enough to keep the threads busy, few enough that memory doesn't grow with the source
                if len(waiting) > 4 * self.workers + 16:
                    yield self._end(waiting.popleft(), unwritten)
                    step()
            while waiting:
                yield self._end(waiting.popleft(), unwritten)
                step()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self.ledger.add(unwritten)

    def _begin(self, sample: Sample, pool: ThreadPoolExecutor) -> _Waiting:
        if is_address(sample.image):
            assert self.downloaded is not None
            sample, outcome = self.downloaded(sample)
            return sample, sample.image, None, outcome
        path = os.path.abspath(sample.image)
        try:
            member = container(path)
            state = os.stat(member[0] if member else path)
        except (OSError, ValueError):
            return sample, path, None, pool.submit(self._decode, path)  # which says exactly why
        known = self.ledger.find(path, state)
        if isinstance(known, ImageFacts) and not self.store.holds(known, member[2] if member else state.st_size):
            known = None
        return sample, path, state, known or pool.submit(self._decode, path)

    def _decode(self, path: str) -> Outcome:
        try:
            return self.store(read_bytes(path), path)
        except ImageProblem as problem:
            return Problem(id="", reason=problem.reason, detail=problem.detail)

    def _end(self, item: _Waiting, unwritten: list[tuple[str, os.stat_result, Outcome]]) -> tuple[Sample, Outcome]:
        sample, path, state, answer = item
        if not isinstance(answer, Future):
            return sample, answer
        outcome = answer.result()
        if state is not None:
            self.decoded += 1
            unwritten.append((path, state, outcome))
        if len(unwritten) >= 64:  # so much work may be lost to a kill
            self.ledger.add(unwritten)
            unwritten.clear()
        return sample, outcome
