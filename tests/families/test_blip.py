"""BLIP against plain transformers calls, and its mixture of encoder–decoder."""

import pytest
import torch
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

from cutline.core.config import parse
from cutline.core.errors import CheckpointError
from cutline.core.records import Sample
from cutline.families.blip import Blip, BlipCaptioner, BlipMatcher, BlipMixtureFamily
from cutline.families.common.blip_texts import clean
from cutline.families.models.blip_mixture import BlipMixture
from cutline.families.open import find, open_family
from cutline.families.settings import GenerateSettings, ModelSettings
from cutline.train.trainable import partition
from tests.conftest import drawing

TEXTS = ("A red circle, above a (blue) square!", "a green triangle")


@pytest.fixture(scope="module")
def matcher():
    made = BlipMatcher.tiny().eval()
    with torch.no_grad():
        for parameter in made.model.text_encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


@pytest.fixture(scope="module")
def mixture(matcher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("matcher")
    matcher.save(folder)
    made = Blip.new({"matcher": str(folder)}, ()).eval()
    assert isinstance(made, BlipMixtureFamily)
    return made


def pictures():
    return [drawing(1), drawing(2)]


def test_the_file_is_one_family():
    assert find("blip") is Blip
    assert type(find("blip").tiny()) is BlipCaptioner
    assert type(find("blip").tiny(task="match")) is BlipMatcher
    assert type(find("blip").tiny(new={"matcher": "hub/matcher"})) is BlipMixtureFamily
    assert BlipMatcher.name() == BlipCaptioner.name() == "blip"


def test_cosines_are_those_of_transformers(matcher):
    texts, pixels = matcher.encode_texts(TEXTS), matcher.pixels(pictures())
    with torch.no_grad():
        ours = matcher.similarity(matcher.embed_images(pixels), matcher.embed_texts(texts))
        theirs = matcher.model(**texts, **pixels, use_itm_head=False).itm_score
    torch.testing.assert_close(ours, theirs)


def test_matching_starts_with_enc_as_published(matcher):
    texts, pixels = matcher.encode_texts(TEXTS), matcher.pixels(pictures())
    assert matcher.match_start_id == matcher.tokenizer.convert_tokens_to_ids("[ENC]")
    published = {**texts, "input_ids": texts["input_ids"].clone()}
    published["input_ids"][:, 0] = matcher.match_start_id
    with torch.no_grad():
        ours = matcher.match_logits(pixels, texts, torch.arange(2))[:, 1]
        torch.testing.assert_close(ours, matcher.model(**published, **pixels).itm_score[:, 1])
        # what leaving [CLS] there would give
        assert not torch.allclose(ours, matcher.model(**texts, **pixels).itm_score[:, 1], atol=1e-4)
    assert texts["input_ids"][0, 0] == matcher.tokenizer.cls_token_id


def test_enc_is_known_without_being_in_the_tokenizer(matcher, monkeypatch):
    """The hub's tokenizers have neither [DEC] nor [ENC]; the embeddings have rows for both."""
    vocabulary = {token: id_ for token, id_ in matcher.tokenizer.get_vocab().items() if token != "[ENC]"}
    expected = matcher.match_start_id
    monkeypatch.setattr(type(matcher.tokenizer), "get_vocab", lambda self: vocabulary)
    assert matcher.match_start_id == expected


def test_texts_are_cleaned_and_cut_as_published():
    assert clean(TEXTS[0], 30) == "a red circle, above a blue square"
    assert clean("Dogs: one (brown), #2; 'Rex'...  ~and~\n\"friends\"", 30) == "dogs one brown , 2 'rex' and friends"
    assert clean("word " * 40, 30).split() == ["word"] * 30


def test_captions_are_those_of_transformers():
    captioner = BlipCaptioner.tiny(seed=3).eval()
    with torch.no_grad():
        for parameter in captioner.model.text_decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    samples = [Sample(id=str(n), image="") for n in range(2)]
    batch = captioner.collate(samples, with_targets=False, images=pictures())
    for settings in (GenerateSettings(max_new_tokens=8), GenerateSettings(max_new_tokens=8, num_beams=3)):
        made = captioner.generate(batch, settings)
        prompt = captioner.tokenizer([captioner.prompt] * 2, return_tensors="pt")  # [CLS] prompt [SEP]
        theirs = captioner.model.generate(
            pixel_values=batch["pixel_values"],
            input_ids=prompt["input_ids"],
            attention_mask=prompt["attention_mask"],
            max_new_tokens=8,
            num_beams=settings.num_beams,
        )
        said = captioner.tokenizer.batch_decode(theirs[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        assert [one.text for one in made] == said


def test_prompts_of_different_lengths_stand_in_one_batch():
    captioner = BlipCaptioner.tiny(seed=4).eval()
    captioner.prompt = "{context} a picture of"
    contexts: list[dict[str, str]] = [{}, {"place": "the red square, to the left"}]
    samples = [Sample(id=str(n), image="", context=context) for n, context in enumerate(contexts)]
    settings = GenerateSettings(max_new_tokens=6)
    together = captioner.generate(captioner.collate(samples, with_targets=False, images=pictures()), settings)
    for sample, picture, made in zip(samples, pictures(), together, strict=True):
        (alone,) = captioner.generate(captioner.collate([sample], with_targets=False, images=[picture]), settings)
        assert alone.text == made.text
        assert alone.logprob == pytest.approx(made.logprob, abs=1e-4)


@pytest.mark.parametrize(("architecture", "count"), [(BlipForConditionalGeneration, 223_971_644),
                                                     (BlipForImageTextRetrieval, 223_744_258)])  # fmt: skip
def test_published_sizes(architecture, count):
    heads = {"num_attention_heads": 12}
    with torch.device("meta"):
        model = architecture(BlipConfig(text_config=heads))
    if architecture is BlipForConditionalGeneration:
        model.tie_weights()
    assert sum(p.numel() for p in model.parameters()) == count


def test_a_configuration_without_heads_gets_the_published_ones(tmp_path):
    sizes = {"num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 40, "hidden_size": 768}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    model = BlipForImageTextRetrieval(BlipConfig(text_config=sizes | {"bos_token_id": 38}, vision_config=vision))
    tiny = BlipMatcher.tiny()
    assert model.config.text_config.num_attention_heads == 8
    for place in (model, tiny.image_processor, tiny.tokenizer):
        place.save_pretrained(tmp_path)
    opened = Blip.open(str(tmp_path))
    assert opened.model.text_encoder.encoder.layer[0].attention.self.num_attention_heads == 12


def test_a_blip_for_questions_is_refused(tmp_path):
    BlipConfig(architectures=["BlipForQuestionAnswering"]).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is not a BLIP captioner or matcher: BlipForQuestionAnswering"):
        Blip.open(str(tmp_path))


# ---- the mixture


def test_the_decoder_shares_all_but_its_self_attention(mixture):
    encoder = dict(mixture.model.text_encoder.named_parameters())
    decoder = dict(mixture.model.text_decoder.bert.named_parameters())
    for name, parameter in encoder.items():
        assert (decoder[name] is parameter) == (".attention." not in name)
        assert torch.equal(decoder[name], parameter)  # the self-attention begins as the encoder's
    assert mixture.model.text_decoder.cls.predictions.decoder.weight is encoder["embeddings.word_embeddings.weight"]


def test_the_mixture_matches_as_the_matcher_did(matcher, mixture):
    texts, pixels = matcher.encode_texts(TEXTS), matcher.pixels(pictures())
    with torch.no_grad():
        torch.testing.assert_close(mixture.embed_images(pixels), matcher.embed_images(pixels))
        torch.testing.assert_close(mixture.embed_texts(texts), matcher.embed_texts(texts))
        torch.testing.assert_close(
            mixture.match_logits(pixels, texts, torch.arange(2))[:, 1],
            matcher.match_logits(pixels, texts, torch.arange(2))[:, 1],
        )


def test_the_mixture_captions_and_all_its_heads_learn(mixture):
    sample = [Sample(id=str(n), image="", captions=(text,)) for n, text in enumerate(TEXTS)]
    batch = mixture.collate(sample, with_targets=True, images=pictures())
    texts = mixture.encode_texts(TEXTS)
    loss = mixture(batch).nll
    loss = loss + mixture.match_logits(batch, texts, torch.arange(2))[:, 1].sum()
    cosines = mixture.similarity(mixture.embed_images(batch), mixture.embed_texts(texts))
    (loss + (cosines / mixture.model.temperature).diagonal().sum()).backward()
    idle = [name for name, p in mixture.model.named_parameters() if p.grad is None]
    mixture.model.zero_grad()
    assert idle == []
    assert {part for part, names in partition(mixture).items() if names} == {"vision", "bridge", "text", "head"}


def test_a_saved_mixture_opens_again_and_as_a_plain_matcher(mixture, tmp_path):
    mixture.save(tmp_path)
    opened = Blip.open(str(tmp_path)).eval()
    assert isinstance(opened, BlipMixtureFamily)
    assert type(opened.model) is BlipMixture
    samples = [Sample(id=str(n), image="") for n in range(2)]
    batch = mixture.collate(samples, with_targets=False, images=pictures())
    settings = GenerateSettings(max_new_tokens=6)
    assert mixture.generate(batch, settings) == opened.generate(batch, settings)
    plain = BlipForImageTextRetrieval.from_pretrained(tmp_path).eval()
    texts = mixture.encode_texts(TEXTS)
    texts["input_ids"][:, 0] = mixture.match_start_id
    with torch.no_grad():
        scores = plain(**texts, pixel_values=batch["pixel_values"]).itm_score[:, 1]
        torch.testing.assert_close(mixture.match_logits(batch, texts, torch.arange(2))[:, 1], scores)


def test_a_mixture_is_not_quantised(mixture, tmp_path):
    pytest.importorskip("bitsandbytes")
    mixture.save(tmp_path)
    wanted = parse({"checkpoint": str(tmp_path), "quantize": "nf4"}, ModelSettings)
    with pytest.raises(CheckpointError, match="share their matrices"):
        open_family(wanted)
