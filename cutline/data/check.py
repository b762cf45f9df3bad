"""Decoding every image of a source once, on all cores, and storing those that are whole."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cutline.data.dataset import image_name, store_image
from cutline.data.images import ImageFacts, ImageProblem, check_image
from cutline.data.ledger import Ledger
from cutline.data.problem import Problem
from cutline.errors import DataError
from cutline.records import Sample

Verdict = ImageFacts | Problem
_Waiting = tuple[Sample, str, os.stat_result | None, "Future[Verdict] | Verdict"]


class Checker:
    """Checks images in threads (Pillow lets go of the interpreter while it decodes), a bounded number at a time.

    Attributes:
        decoded: how many images were decoded, rather than known from an earlier run.
    """

    def __init__(self, folder: Path, ledger: Ledger, max_pixels: int, workers: int | None = None):
        self.folder = folder
        self.ledger = ledger
        self.max_pixels = max_pixels
        self.workers = workers or _cores()
        self.decoded = 0

    def check(self, samples: Iterable[Sample], step: Callable[[], None]) -> Iterator[tuple[Sample, Verdict]]:
        """Each sample with what is known of its image, in the samples' order.

        Args:
            samples: with the paths of their images.
            step: called once for each sample that is done.

        Raises:
            DataError: the dataset's folder can't be written.
        """
        waiting: deque[_Waiting] = deque()
        unwritten: list[tuple[str, os.stat_result, Verdict]] = []
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
        path = os.path.abspath(sample.image)
        try:
            state = os.stat(path)
        except (OSError, ValueError):
            return sample, path, None, pool.submit(self._decode, path)  # which says exactly why
        known = self.ledger.find(path, state)
        if isinstance(known, ImageFacts) and not self._holds(known, state.st_size):
            known = None
        return sample, path, state, known or pool.submit(self._decode, path)

    def _holds(self, facts: ImageFacts, size: int) -> bool:
        """Whether what was found earlier is still true: the picture is stored, and small enough for today's limit."""
        try:
            stored = os.stat(self.folder / image_name(facts)).st_size
        except FileNotFoundError:
            return False
        return stored == size and facts.width * facts.height <= self.max_pixels

    def _decode(self, path: str) -> Verdict:
        try:
            facts, data = check_image(path, self.max_pixels)
        except ImageProblem as problem:
            return Problem(id="", reason=problem.reason, detail=problem.detail)
        try:
            store_image(self.folder, facts, data)
        except OSError as error:
            raise DataError(
                f"{self.folder} can't be written: {error.strerror}.",
                "Make room there or give another folder; preparing goes on where it stopped.",
            ) from error
        return facts

    def _end(self, item: _Waiting, unwritten: list[tuple[str, os.stat_result, Verdict]]) -> tuple[Sample, Verdict]:
        sample, path, state, answer = item
        if not isinstance(answer, Future):
            return sample, answer
        verdict = answer.result()
        if state is not None:
            self.decoded += 1
            unwritten.append((path, state, verdict))
        if len(unwritten) >= 64:  # so much work may be lost to a kill
            self.ledger.add(unwritten)
            unwritten.clear()
        return sample, verdict


def _cores() -> int:
    """Cores that this process may use; a container often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
