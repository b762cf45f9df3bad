"""The joined model on many towers and many language models: exact whatever the halves are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers as hf
from transformers import AutoModelForImageTextToText

from cutline.core.errors import CheckpointError
from cutline.core.records import Sample
from cutline.families.common.loss import IGNORED
from cutline.families.common.tiny import example_texts
from cutline.families.common.vocabulary import byte_bpe
from cutline.families.models.vgg import VggConfig, VggModel
from cutline.families.models.vision_prefix import VisionPrefixForConditionalGeneration
from cutline.families.settings import GenerateSettings, ImagePolicy, ModelSettings
from cutline.families.vision_prefix import IMAGE, VisionPrefix
from cutline.train.trainable import open_parts
from tests.conftest import drawing

CAPTIONS = ("a red circle above a blue square", "a green triangle")

# as Llama-3.2-Instruct: a begin token in the template, and today's date unless it is told another
DATED = (
    "<bos>{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}\n{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "<stop>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TOWERS = {
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**SMALL, image_size=64, patch_size=16)),
    "dinov2": lambda: hf.Dinov2Model(
        hf.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16)
    ),
    "resnet": lambda: hf.ResNetModel(
        hf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    ),
    "mobilenet": lambda: hf.MobileNetV2Model(hf.MobileNetV2Config(depth_multiplier=0.35, min_depth=8)),
    "convnext": lambda: hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[8, 12, 16, 32], depths=[1, 1, 1, 1])),
    "vgg": lambda: VggModel(VggConfig(depth=11, widths=[4, 4, 8, 8, 16])),
    "clip": lambda: hf.CLIPModel(
        hf.CLIPConfig(
            text_config=SMALL | {"vocab_size": 64}, vision_config=SMALL | {"image_size": 64, "patch_size": 16}
        )
    ),
    "siglip": lambda: hf.SiglipModel(
        hf.SiglipConfig(
            text_config=SMALL | {"vocab_size": 64}, vision_config=SMALL | {"image_size": 64, "patch_size": 16}
        )
    ),
}
WORDS = SMALL | {"vocab_size": 424, "max_position_embeddings": 256}
TEXTS: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**WORDS)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=424, n_positions=256, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=2)
    ),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=424, hidden_size=32, word_embed_proj_dim=16, ffn_dim=48, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=256,
        )
    ),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**WORDS, num_key_value_heads=2)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**WORDS)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**WORDS, head_dim=8, num_key_value_heads=2, final_logit_softcapping=0.5)
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**WORDS, head_dim=8, num_key_value_heads=2)),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**WORDS, logits_scaling=4.0)),
    "cohere": lambda: hf.CohereForCausalLM(
        hf.CohereConfig(**WORDS, logit_scale=0.25, bos_token_id=0, eos_token_id=2, pad_token_id=1)
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_bpe(example_texts(), 420).save_pretrained(folder)
    return folder


@pytest.fixture
def join(tmp_path, tokenizer_folder):
    """Saves two checkpoints as they would lie on the hub, and joins them as a recipe does."""

    def joined(tower: str = "vit", text: str = "llama", template: str | None = None, **new) -> VisionPrefix:
        torch.manual_seed(0)
        TOWERS[tower]().save_pretrained(tmp_path / tower)
        hf.ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path / tower)
        TEXTS[text]().save_pretrained(tmp_path / text)
        tokenizer = hf.AutoTokenizer.from_pretrained(tokenizer_folder)
        tokenizer.chat_template = template
        tokenizer.add_special_tokens({"extra_special_tokens": ["<stop>"]})
        tokenizer.save_pretrained(tmp_path / text)
        sizes = {"vision": str(tmp_path / tower), "text": str(tmp_path / text)} | new
        return VisionPrefix.new(sizes, (), seed=0).eval()

    return joined


def batch(family, captions=CAPTIONS, **how):
    samples = [Sample(id=str(n), image="", captions=(text,)) for n, text in enumerate(captions)]
    return family.collate(samples, images=[drawing(n) for n in range(len(captions))], **how)


@pytest.mark.parametrize("tower", TOWERS)
def test_any_tower_is_joined_whole_and_learns(tower, join, tmp_path):
    family = join(tower)
    original = hf.AutoModel.from_pretrained(tmp_path / tower)
    original = getattr(original, "vision_model", original)
    pixels = batch(family, with_targets=True)["pixel_values"]
    with torch.no_grad():
        seen, expected = family.model.encode_images(pixels), original.eval()(pixels).last_hidden_state
        tokens = family.model.projector(torch.randn_like(seen))
    expected = expected.flatten(2).transpose(1, 2) if expected.dim() == 4 else expected
    assert torch.allclose(seen, expected, atol=1e-5)
    # the projector speaks at the volume of words
    words = family.model.get_input_embeddings().weight
    assert float(tokens.std()) == pytest.approx(float(words.detach().std()), rel=0.5)
    open_parts(family, {})
    family.train()
    family(batch(family, with_targets=True)).nll.backward()
    assert not [name for name, p in family.model.named_parameters() if p.requires_grad and p.grad is None]


def test_training_a_convolutional_tower_leaves_its_statistics_and_rows_apart(join):
    family = join("resnet")
    open_parts(family, {})
    family.train()
    before = {name: value.clone() for name, value in family.model.vision_tower.named_buffers()}
    together = family(batch(family, with_targets=True)).nll.item()
    rows = [batch(family, (text,), with_targets=True) for text in CAPTIONS]
    rows[1]["pixel_values"] = batch(family, with_targets=True)["pixel_values"][1:]
    assert sum(family(row).nll.item() for row in rows) == pytest.approx(together, rel=1e-4)
    assert all(torch.equal(before[name], value) for name, value in family.model.vision_tower.named_buffers())


@pytest.mark.parametrize("text", TEXTS)
def test_any_language_model_gives_its_own_loss_and_the_same_captions_alone(text, join, tmp_path):
    family = join(text=text)
    original = TEXTS[text]().from_pretrained(tmp_path / text).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in family.model.language_model.state_dict().items())
    made = batch(family, with_targets=True)
    with torch.no_grad():
        logits = family.model(made["input_ids"], made["pixel_values"], attention_mask=made["attention_mask"]).logits
        loss = family.loss(made)
    labels = made["labels"][:, 1:]
    chosen = labels != IGNORED
    expected = torch.nn.functional.cross_entropy(logits[:, :-1][chosen].float(), labels[chosen], reduction="sum")
    assert float(loss.nll) == pytest.approx(float(expected), rel=1e-5)
    samples = [
        Sample(id="0", image="", captions=(), context={"headline": "a long one of many words"}),
        Sample(id="1", image="", captions=(), context={"headline": "short"}),
    ]
    family.prompt = "{context}"  # prompts of different length: one is padded
    images = [drawing(0), drawing(1)]
    for settings in (GenerateSettings(max_new_tokens=6), GenerateSettings(max_new_tokens=6, num_beams=3)):
        together = family.generate(family.collate(samples, with_targets=False, images=images), settings)
        for sample, image, one in zip(samples, images, together, strict=True):
            (alone,) = family.generate(family.collate([sample], with_targets=False, images=[image]), settings)
            assert alone.text == one.text
            assert alone.logprob == pytest.approx(one.logprob, abs=1e-3)


def test_neighbouring_cells_become_one_token(join):
    family = join("vit", merge=2)
    made = batch(family, with_targets=False)
    # 64 px in patches of 16 px are 16 cells and a class token, which has no neighbours
    assert int((made["input_ids"][0] == family.image_token_id).sum()) == 4
    grid = torch.arange(16.0).reshape(1, 16, 1)
    merged = family.model.projector._merged(torch.cat([torch.full((1, 1, 1), -1.0), grid], 1))
    assert merged[0, 0].tolist() == [0.0, 1.0, 4.0, 5.0]
    assert merged[0, 3].tolist() == [10.0, 11.0, 14.0, 15.0]
    with pytest.raises(CheckpointError, match="merge = 3"):
        batch(join("vit", merge=3), with_targets=False)


def test_prompt_is_a_turn_of_the_chat_with_one_begin_token_and_no_todays_date(join):
    family = join(template=DATED)
    (ids,) = batch(family, CAPTIONS[:1], with_targets=False)["input_ids"].tolist()
    text = family.tokenizer.decode([id for id in ids if id != family.image_token_id])
    assert text == "<bos>Today Date: 26 Jul 2024\nuser: \nDescribe the image in one sentence.<stop>\nassistant: "
    assert ids.count(family.tokenizer.bos_token_id) == 1
    # a caption ends as the template ends a turn, and the language model's own end is still one
    (labels,) = batch(family, CAPTIONS[:1], with_targets=True)["labels"]
    assert labels[-1] == family.tokenizer.convert_tokens_to_ids("<stop>")
    assert family.end_ids == [int(labels[-1]), family.tokenizer.eos_token_id]


def test_image_token_in_a_context_is_only_text(join):
    family = join()
    family.prompt = "About {context}:"
    sample = Sample(id="0", image="", captions=("a",), context={"headline": f"{IMAGE} of the day"})
    made = family.collate([sample], with_targets=True, images=[drawing(0)])
    assert torch.isfinite(family.loss(made).nll)
    assert int((made["input_ids"] == family.image_token_id).sum()) == 17


def test_penalties_count_what_was_said_and_not_the_padding(join, monkeypatch):
    """Also in a row whose prompt is shorter than its neighbour's."""
    family = join()
    family.prompt = "{context}"
    samples = [
        Sample(id="0", image="", captions=(), context={"headline": "a long one of very many words"}),
        Sample(id="1", image="", captions=(), context={"headline": "short"}),
    ]
    made = family.collate(samples, with_targets=False, images=[drawing(0), drawing(1)])
    assert int(made["attention_mask"][1].sum()) + 5 < made["attention_mask"].shape[1]
    said = []
    decode = type(family.tokenizer).decode
    monkeypatch.setattr(
        type(family.tokenizer), "decode", lambda self, ids, **how: said.append(list(ids)) or decode(self, ids, **how)
    )
    family.generate(made, GenerateSettings(max_new_tokens=12))
    assert any(len(set(tokens)) < len(tokens) for tokens in said)
    for settings in (
        GenerateSettings(max_new_tokens=12, min_new_tokens=10, repetition_penalty=1e6),
        GenerateSettings(max_new_tokens=12, min_new_tokens=10, no_repeat_ngram_size=1, num_beams=2),
    ):
        said.clear()
        family.generate(made, settings)
        assert all(len(set(tokens)) == len(tokens) >= 10 for tokens in said)


def test_hugging_face_opens_the_checkpoint(join, tmp_path):
    family = join()
    family.save(tmp_path / "joined")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "joined", dtype=torch.bfloat16)
    assert isinstance(model, VisionPrefixForConditionalGeneration)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    made = batch(family, with_targets=False)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "joined", dtype=torch.float32)
    ids = model.generate(
        input_ids=made["input_ids"],
        pixel_values=made["pixel_values"],
        attention_mask=made["attention_mask"],
        max_new_tokens=6,
        do_sample=False,
    )
    ours = family.generate(made, GenerateSettings(max_new_tokens=6))
    assert [family.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids] == [one.text for one in ours]


def test_small_language_model_from_scratch_on_a_pretrained_tower(join, tmp_path):
    join()  # leaves a ViT in the folder
    captions = [*CAPTIONS * 3, "one rare word"]
    new = {"vision": str(tmp_path / "vit"), "vocabulary": "words", "min_count": 2, "text_width": 32, "text_layers": 1}
    family = VisionPrefix.new(new, captions)
    assert family.prompt == ""
    assert "rare" not in family.tokenizer.get_vocab()
    made = batch(family, CAPTIONS, with_targets=True)
    # begin token, the image, the caption's words, the end token
    assert made["input_ids"][1].tolist()[:18] == [family.tokenizer.bos_token_id] + [family.image_token_id] * 17
    with torch.no_grad():
        family.model.get_output_embeddings().weight[family.tokenizer.unk_token_id] = 100.0
    said = family.generate(batch(family, CAPTIONS, with_targets=False), GenerateSettings(max_new_tokens=6))
    assert all("<" not in one.text for one in said)


def test_what_can_not_be_joined_says_why(join, tmp_path):
    family = join()
    with pytest.raises(CheckpointError, match="could not be opened"):
        VisionPrefix.new({"vision": str(tmp_path / "vit"), "text": str(tmp_path / "nothing")}, ())
    with pytest.raises(CheckpointError, match="could not be opened"):
        VisionPrefix.new({"vision": str(tmp_path / "nothing"), "text": str(tmp_path / "llama")}, ())
    endless = hf.AutoTokenizer.from_pretrained(tmp_path / "llama")
    endless.eos_token = None
    endless.save_pretrained(tmp_path / "llama")
    with pytest.raises(CheckpointError, match="no end token"):
        VisionPrefix.new({"vision": str(tmp_path / "vit"), "text": str(tmp_path / "llama")}, ())
    assert family.tasks == {"caption"}


def test_pretrained_mobilenet_and_a_small_language_model_learn_real_photographs(shared):
    """Two photographs are told apart by a frozen tower that really sees, and their captions learnt."""
    new = {
        "vision": str(shared / "mobilenet_v2_1.0_224"),
        "merge": 2,
        "vocabulary": "words",
        "min_count": 1,
        "text_width": 32,
        "text_layers": 1,
    }
    captions = ("two dogs run along the water", "a child climbs a red wall")
    family = VisionPrefix.new(new, captions)
    family.configure(ModelSettings(family="vision_prefix", new=new, image=ImagePolicy(size=256)))
    photographs = sorted((shared / "flickr8k/images").glob("*.jpg"))[:2]
    samples = [Sample(id=p.name, image=str(p), captions=(text,)) for p, text in zip(photographs, captions, strict=True)]
    open_parts(family, {"vision": "frozen"})
    with torch.no_grad():
        seen = family.split_features(family.encode_images(family.collate(samples, with_targets=False)))
    made = family.train().collate(samples, with_targets=True, features=seen)
    # 8 × 8 cells of 256 px, merged by fours
    assert int((made["input_ids"][0] == family.image_token_id).sum()) == 16
    optimizer = torch.optim.AdamW([p for p in family.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(40):
        loss = family(made)
        optimizer.zero_grad()
        (loss.nll / loss.tokens).backward()
        optimizer.step()
    said = family.eval().generate(family.collate(samples, with_targets=False), GenerateSettings(max_new_tokens=12))
    assert [one.text for one in said] == list(captions)
