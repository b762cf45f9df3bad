"""BLIP-2 against plain transformers calls, with OPT, with Flan-T5, and the Q-Former alone."""

import pytest
import torch
from transformers import (
    AutoProcessor,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
)

from cutline.core.errors import CheckpointError
from cutline.core.records import Sample
from cutline.families.base import Family
from cutline.families.blip_2 import Blip2, Blip2Causal, Blip2Matcher, Blip2Seq2Seq
from cutline.families.settings import GenerateSettings
from cutline.train.trainable import open_parts, partition
from tests.conftest import drawing

TEXTS = ("A red circle, above a (blue) square!", "a green triangle")


def stirred(family):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in family.model.named_parameters():
            if family.part_of(name) != "vision":
                parameter.add_(torch.randn_like(parameter) * 0.03)
    return family.eval()


@pytest.fixture(scope="module", params=[Blip2Causal, Blip2Seq2Seq])
def captioner(request):
    return stirred(request.param.tiny())


@pytest.fixture(scope="module")
def matcher():
    return stirred(Blip2Matcher.tiny())


def pictures():
    return [drawing(1), drawing(2)]


def samples(captions=("", "")):
    return [Sample(id=str(n), image="", captions=(text,) if text else ()) for n, text in enumerate(captions)]


def processor_inputs(captioner):
    """What the real processor makes of the prompt; with OPT it is </s> that it puts in front."""
    queries = captioner.model.config.num_query_tokens
    processor = Blip2Processor(captioner.image_processor, captioner.tokenizer, num_query_tokens=queries)
    prompt = ("</s>" if isinstance(captioner, Blip2Causal) else "") + captioner.prompt
    return processor(images=pictures(), text=[prompt] * 2, return_tensors="pt")


def test_prompts_are_those_of_the_real_processor(captioner):
    batch = captioner.collate(samples(), with_targets=False, images=pictures())
    theirs = processor_inputs(captioner)
    for name in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(batch[name], theirs[name]), name


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_those_of_transformers(captioner, beams):
    settings = GenerateSettings(max_new_tokens=8, num_beams=beams)
    made = captioner.generate(captioner.collate(samples(), with_targets=False, images=pictures()), settings)
    inputs = processor_inputs(captioner)
    theirs = captioner.model.generate(
        **inputs, max_new_tokens=8, num_beams=beams, do_sample=False, eos_token_id=captioner.end_ids
    )
    start = inputs["input_ids"].shape[1] if isinstance(captioner, Blip2Causal) else 1
    said = captioner.tokenizer.batch_decode(theirs[:, start:], skip_special_tokens=True)
    assert [one.text for one in made] == [text.strip() for text in said]


def test_opt_ends_a_caption_with_a_newline_and_no_caption_holds_one():
    family = Blip2Causal.tiny()
    batch = family.collate(samples(("a red\ncircle", "a green triangle")), with_targets=True, images=pictures())
    newline = family.tokenizer.convert_tokens_to_ids("Ċ")
    for row in batch["labels"]:
        targets = row[row != -100].tolist()
        assert targets[-1] == newline == family.end_ids[0]
        assert newline not in targets[:-1]
    assert family.tokenizer.decode(batch["labels"][0][batch["labels"][0] != -100][:-1]) == " a red circle"
    starts = (batch["input_ids"] == family.tokenizer.bos_token_id).sum(1)
    assert starts.tolist() == [1, 1]


def test_context_stands_in_the_prompt_and_never_in_the_labels(captioner):
    captioner.prompt = "{context} a photo of"
    try:
        told = Sample(id="0", image="", captions=("a green triangle",), context={"place": "red square"})
        batch = captioner.collate([told], with_targets=True, images=pictures()[:1])
        assert "place: red square a photo of" in captioner.tokenizer.decode(batch["input_ids"][0])
        labels = batch["labels"][batch["labels"] != -100]
        assert captioner.tokenizer.decode(labels, skip_special_tokens=True).strip() == "a green triangle"
    finally:
        captioner.prompt = captioner.default_prompt


def test_cosines_are_those_of_transformers(matcher):
    texts, pixels = matcher.encode_texts(TEXTS), matcher.pixels(pictures())
    with torch.no_grad():
        images = matcher.embed_images(pixels)
        ours = matcher.similarity(images, matcher.embed_texts(texts))
        theirs = matcher.model(**texts, **pixels, use_image_text_matching_head=False).logits_per_image
    assert images.shape == (2, 4, 16)  # a vector a query
    torch.testing.assert_close(ours, theirs)


def test_matching_scores_are_those_of_transformers(matcher):
    texts, pixels = matcher.encode_texts(TEXTS), matcher.pixels(pictures())
    with torch.no_grad():
        ours = matcher.match_logits(pixels, texts, torch.arange(2))[:, 1]
        theirs = matcher.model(**texts, **pixels, use_image_text_matching_head=True).logits_per_image
    torch.testing.assert_close(ours, theirs[:, 1])


def test_each_checkpoint_opens_as_what_it_is(tmp_path):
    for kind in Blip2.variants():
        folder = tmp_path / kind.__name__
        kind.tiny().save(folder)
        assert type(Blip2.open(str(folder))) is kind
        AutoProcessor.from_pretrained(folder, backend="pil")
    Blip2Config(architectures=["Blip2Model"]).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="a BLIP-2 checkpoint: Blip2Model"):
        Blip2.open(str(tmp_path))


def test_a_rehearsal_has_the_language_model_of_the_checkpoint():
    assert type(Blip2.tiny(task="caption", checkpoint="Salesforce/blip2-flan-t5-xl")) is Blip2Seq2Seq
    assert type(Blip2.tiny(task="caption", checkpoint="Salesforce/blip2-opt-2.7b")) is Blip2Causal


def test_the_q_former_stays_in_float32_where_it_would_overflow(captioner, matcher):
    for family in (type(captioner).tiny(), Blip2Matcher.tiny()):
        family.to(torch.float16)
        assert family.dtype == torch.float16
        assert {p.dtype for p in family.model.qformer.parameters()} == {torch.float32}
        assert family.model.query_tokens.dtype == torch.float32
        family.to(torch.bfloat16)
        assert {p.dtype for p in family.parameters()} == {torch.bfloat16}


class OnMeta(Blip2Causal):
    """The published model without its weights."""

    def __init__(self, model: torch.nn.Module):
        super().__init__(model, None, None)

    @classmethod
    def name(cls) -> str:
        return "blip_2"


@pytest.fixture(scope="module")
def published() -> Family:
    text = {
        "model_type": "opt",
        "vocab_size": 50304,
        "hidden_size": 2560,
        "ffn_dim": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "word_embed_proj_dim": 2560,
    }
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(Blip2Config(text_config=text))
    model.tie_weights()
    return OnMeta(model)


def test_published_sizes(published):
    parts = {part: sum(p.numel() for _, p in found) for part, found in partition(published).items()}
    assert parts == {
        "vision": 985_952_256,
        "bridge": 105_137_664,
        "projection": 1_968_640 + 24_576,
        "head": 0,  # tied to the embeddings
        "text": 2_651_678_720,
    }
    assert sum(parts.values()) == 3_744_761_856


def test_the_news_recipe_trains_what_the_original_did(published):
    """Q-Former and last decoder layer: 4.91 % of the model."""
    policies = {"vision": "frozen", "projection": "frozen", "bridge": "full", "head": "full", "text": "last:1"}
    assert sum(line.trainable for line in open_parts(published, policies)) == 183_814_144


def test_the_published_matcher_falls_into_its_parts():
    with torch.device("meta"):
        qformer = {"use_qformer_text_input": True}
        model = Blip2ForImageTextRetrieval(Blip2Config(qformer_config=qformer))
    family = Blip2Matcher(model, None, None)
    parts = partition(family)
    assert sum(p.numel() for found in parts.values() for _, p in found) == sum(p.numel() for p in model.parameters())
    layers = {int(name.split(".")[3]) for name, _ in parts["text"] if name.startswith("qformer.encoder")}
    assert layers == set(range(12))
