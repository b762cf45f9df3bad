"""BLEU, ROUGE-L and CIDEr equal pycocoevalcap's, given its tokens."""

import numpy as np
import pytest

from cutline.metrics.cider import cider_d
from cutline.metrics.scorer import Scorer, score
from cutline.metrics.text.ngrams import ReferenceNgrams
from cutline.metrics.text.tokenize import Pretokenized
from tests.metrics import reference_scores

SCORES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider")


def test_own_cases_equal_the_reference() -> None:
    own = reference_scores.own()
    found = score(
        own["candidate_tokens"], own["reference_tokens"], metrics=SCORES, resamples=0, tokenizer=Pretokenized()
    )
    for name in SCORES:
        assert found[name].value == pytest.approx(own["scores"][name], abs=1e-12)
        np.testing.assert_allclose(found[name].per_image, own["per_image"][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", reference_scores.SETS)
def test_large_sets_equal_the_reference(name: str) -> None:
    known = reference_scores.shared(name)
    candidates = {image: texts[0] for image, texts in known["res_tok"].items()}
    scorer = Scorer(known["gts_tok"], [*SCORES, "cider_original"], resamples=0, tokenizer=Pretokenized())
    found = scorer.score(candidates)
    for mine in SCORES:
        theirs = reference_scores.NAMES[mine]
        assert found[mine].value == pytest.approx(known["scores"][theirs], abs=1e-9)
        np.testing.assert_allclose(found[mine].per_image, known["per_image"][theirs], rtol=0, atol=1e-9)
    assert scorer.values(candidates) == {mine: found[mine].value for mine in found}
    if name == "official_fakecap":
        assert found["cider_original"].value == pytest.approx(0.7110599515, abs=1e-9)


def test_several_candidates_of_some_images() -> None:
    """Candidates of any images, in any order, have the values that they have as the only candidate of their image."""
    known = reference_scores.own()
    texts = [words for captions in known["reference_tokens"].values() for words in captions]
    per_image = np.array([len(captions) for captions in known["reference_tokens"].values()])
    index = ReferenceNgrams(texts, per_image)
    alone = [[texts[(7 * image + offset) % len(texts)] for image in range(index.images)] for offset in (0, 1)]
    alone[0][3], alone[1][8] = "", "zebra zebra a a a a dog"
    expected = [index.join(captions) for captions in alone]
    images = [8, 3, 3, 0, 8, index.images - 1]
    given = [1, 0, 1, 1, 0, 0]
    joined = index.join([alone[side][image] for side, image in zip(given, images, strict=True)], images)
    for position, (side, image) in enumerate(zip(given, images, strict=True)):
        assert cider_d(joined)[position] == pytest.approx(cider_d(expected[side])[image], abs=1e-12)
        assert joined.overlap.matches[position].tolist() == expected[side].overlap.matches[image].tolist()
    assert cider_d(joined)[1] == 0 < cider_d(joined)[0]
    assert not len(cider_d(index.join([], [])))
