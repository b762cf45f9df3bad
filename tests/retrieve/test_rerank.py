"""The fast re-ranker against the published procedure, written plainly."""

import copy

import pytest
import torch

from cutline.core.errors import CheckpointError
from cutline.families.blip import BlipMatcher
from cutline.families.blip_2 import Blip2Matcher
from cutline.families.clip import Clip
from cutline.families.common.blip_2_matching import Blip2Matching
from cutline.families.common.blip_roles import BlipMatching
from cutline.families.common.blip_texts import clean
from cutline.families.common.retrieval import PlainMatching
from cutline.retrieve.rerank import TopK, distinct_pairs, nearest, rerank
from tests.conftest import drawing

TEXTS = [
    "a red circle above a blue square",
    "a green triangle",
    "a yellow square to the left of a red circle",
    "a dog",
    "a green triangle",  # twice in the gallery
    "the quick brown fox jumps over the lazy dog and then it sleeps under a tree until the sun goes down again today",
    "a blue circle",
    "a red square below a white triangle",
]
IMAGES = 5


def stirred(family):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in family.model.named_parameters():
            if family.part_of(name) != "vision" and parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return family.eval()


@pytest.fixture(scope="module")
def matcher():
    return stirred(BlipMatcher.tiny())


def seen(family):
    with torch.no_grad():
        return family.encode_images(family.pixels([drawing(n) for n in range(IMAGES)]))["features"]


def published(family, features, texts):
    """[K] scores as the published evaluation has them: 35 tokens each, the image repeated, Hugging Face's modules."""
    model = family.model
    batch = family.tokenizer(
        [clean(text, 30) for text in texts],
        padding="max_length", truncation=True, max_length=35, return_tensors="pt",
    )  # fmt: skip
    ids = batch["input_ids"].clone()
    ids[:, 0] = family.tokenizer.convert_tokens_to_ids("[ENC]")
    with torch.no_grad():
        hidden = model.text_encoder(
            input_ids=ids,
            attention_mask=batch["attention_mask"],
            encoder_hidden_states=features.repeat(len(texts), 1, 1),
            encoder_attention_mask=torch.ones(len(texts), features.shape[0], dtype=torch.long),
        ).last_hidden_state
        return model.itm_head(hidden[:, 0])[:, 1]


@pytest.mark.parametrize(("tokens_at_once", "keep_bytes"), [(1, 2**30), (20, 2**30), (20, 0), (1024, 2**30)])
def test_fast_scores_are_the_published_ones(matcher, tokens_at_once, keep_bytes):
    fast = BlipMatching(matcher, TEXTS, tokens_at_once, keep_bytes)
    assert (fast.first is None) == (keep_bytes == 0)
    for features in seen(matcher):
        wanted = torch.tensor([5, 0, 1, 7, 4, 2])  # in no order
        scores = fast.scores({"features": features[None]}, wanted)
        torch.testing.assert_close(scores, published(matcher, features, [TEXTS[n] for n in wanted]))
        assert scores.dtype == torch.float32
    assert scores.std() > 0.01  # texts make a difference
    assert scores[2] == pytest.approx(float(scores[4]))  # the same text
    assert len(fast.scores({"features": features[None]}, torch.zeros(0, dtype=torch.int64))) == 0


def test_fast_is_as_near_to_float64_as_the_published_procedure(matcher):
    exact = copy.deepcopy(matcher).double()
    fast = BlipMatching(matcher, TEXTS)
    ours, theirs = [], []
    for features in seen(matcher):
        truth = published(exact, features.double(), TEXTS)
        ours.append(fast.scores({"features": features[None]}, torch.arange(len(TEXTS))) - truth)
        theirs.append(published(matcher, features, TEXTS) - truth)
    assert torch.cat(ours).abs().max() <= 2 * torch.cat(theirs).abs().max() + 1e-7


def test_one_layer_is_its_first_and_its_last():
    tiny = BlipMatcher.tiny()
    config = copy.deepcopy(tiny.model.config)
    config.text_config.num_hidden_layers = 1
    family = stirred(BlipMatcher(type(tiny.model)(config), tiny.image_processor, tiny.tokenizer))
    features = seen(family)[0]
    scores = BlipMatching(family, TEXTS).scores({"features": features[None]}, torch.arange(len(TEXTS)))
    torch.testing.assert_close(scores, published(family, features, TEXTS))


@pytest.mark.parametrize("frequency", [1, 2])
@pytest.mark.parametrize("tokens_at_once", [1, 4096])
def test_the_q_formers_fast_scores_are_those_of_transformers(frequency, tokens_at_once):
    """The judge is Hugging Face's own forward, with padded texts and the image repeated."""
    tiny = Blip2Matcher.tiny()
    config = copy.deepcopy(tiny.model.config)
    config.qformer_config.cross_attention_frequency = frequency  # 2 in the published models: every other layer looks
    family = stirred(Blip2Matcher(type(tiny.model)(config), tiny.image_processor, tiny.tokenizer))
    with torch.no_grad():
        family.model.query_tokens.normal_()
    fast = Blip2Matching(family, TEXTS, tokens_at_once)
    wanted = torch.tensor([5, 0, 1, 7, 4, 2])
    texts = family.encode_texts([TEXTS[n] for n in wanted])
    for number in range(2):
        pixels = family.pixels([drawing(number)])
        with torch.no_grad():
            features = family.encode_images(pixels)
            repeated = pixels["pixel_values"].repeat(len(wanted), 1, 1, 1)
            theirs = family.model(pixel_values=repeated, **texts, use_image_text_matching_head=True).logits_per_image
        scores = fast.scores(features, wanted)
        torch.testing.assert_close(scores, theirs[:, 1])
        assert scores.std() > 1e-3


def test_an_images_keys_and_values_are_made_once(matcher):
    fast = BlipMatching(matcher, TEXTS, tokens_at_once=12)
    calls = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape[-2]))
        for layer in (one.crossattention.self.key for one in matcher.model.text_encoder.encoder.layer)
    ]
    features = seen(matcher)[:1]
    fast.scores({"features": features}, torch.arange(len(TEXTS)))
    for hook in hooks:
        hook.remove()
    assert calls == [features.shape[1]] * len(hooks)


@pytest.mark.parametrize("kind", [BlipMatcher, Blip2Matcher])
@pytest.mark.parametrize("k", [3, 128])
def test_both_directions_from_one_pass(kind, k):
    family = stirred(kind.tiny())
    features = seen(family)
    with torch.no_grad():
        cosines = family.similarity(
            family.embed_images({"features": features}), family.embed_texts(family.encode_texts(TEXTS))
        )
    of_images, of_texts = nearest(cosines, k), nearest(cosines.T, k)
    assert of_images.indices.shape == (IMAGES, min(k, len(TEXTS)))
    assert of_texts.indices.shape == (len(TEXTS), min(k, IMAGES))
    assert torch.equal(of_images.scores(), of_images.cosines)
    taken = [
        len(scores)
        for _, scores in rerank(
            family.matching(TEXTS), lambda image: {"features": features[[image]]}, of_images, of_texts
        )
    ]
    assert sum(taken) == distinct_pairs(of_images, of_texts) <= IMAGES * len(TEXTS)
    plain = PlainMatching(family, TEXTS, batch_size=3)
    table = torch.stack([plain.scores({"features": one[None]}, torch.arange(len(TEXTS))) for one in features])
    assert of_images.matches is not None
    assert of_texts.matches is not None
    torch.testing.assert_close(of_images.matches, table.gather(1, of_images.indices))
    torch.testing.assert_close(of_texts.matches, table.T.gather(1, of_texts.indices))
    torch.testing.assert_close(of_texts.scores(), (table + cosines).T.gather(1, of_texts.indices))


def test_an_image_that_nobody_asks_for_is_still_ranked(matcher):
    features = seen(matcher)
    of_images = TopK(torch.tensor([[0], [1]]), torch.zeros(2, 1))
    of_texts = TopK(torch.zeros(len(TEXTS), 1, dtype=torch.int64), torch.zeros(len(TEXTS), 1))  # all of image 0
    taken = [
        len(scores)
        for _, scores in rerank(
            matcher.matching(TEXTS), lambda image: {"features": features[[image]]}, of_images, of_texts
        )
    ]
    assert taken == [len(TEXTS), 1]
    assert of_images.matches is not None
    assert of_images.matches.isfinite().all()


def test_a_family_without_a_matching_head_says_so():
    with pytest.raises(CheckpointError, match="can't match"):
        Clip.tiny().matching(TEXTS)
