"""Adapters hit what they are told to, stay small, come back the same, and merge; quantised or not."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from cutline.core.config import parse
from cutline.core.errors import CheckpointError, RecipeError, TrainingError
from cutline.families.open import find, open_checkpoint, open_family
from cutline.families.settings import GenerateSettings, LoraSettings, ModelSettings
from cutline.families.weights import adapters
from cutline.train import train as verb
from cutline.train.trainable import open_parts
from tests.train.test_training import settings

TEXT_ONLY = {"vision": "frozen", "bridge": "frozen", "text": "lora", "head": "frozen"}


def opened(family) -> set[str]:
    return {name for name, parameter in family.model.named_parameters() if parameter.requires_grad}


def miniature(place, name="qwen2_5_vl", **model):
    """A miniature, opened from a folder as a real checkpoint is."""
    return open_family(
        parse({"checkpoint": "none", "family": name} | model, ModelSettings), ["a red square"], tiny=True, folder=place
    )


def say(family, dataset):
    family.eval()
    batch = family.collate(dataset.split("val"), with_targets=False)
    return [
        (made.text, pytest.approx(made.logprob, abs=2e-4))
        for made in family.generate(batch, GenerateSettings(max_new_tokens=6))
    ]


# ---- which modules


def test_an_ending_hits_the_named_part_and_not_its_namesakes():
    """q_proj stands in many a vision tower, too; Qwen's tower has its own "proj", which "o_proj" must not hit."""
    family = find("qwen2_5_vl").tiny()
    vision = "model.visual.blocks.0.mlp."
    assert any(name.startswith(vision) and "gate_proj" in name for name, _ in family.model.named_parameters())
    lines = open_parts(family, TEXT_ONLY, LoraSettings(r=2, targets=["gate_proj", "o_proj"]))
    assert {family.part_of(name) for name in opened(family)} == {"text"}
    assert sorted(adapters.layers(family)) == [
        f"model.language_model.layers.{layer}.{name}"
        for layer in (0, 1)
        for name in ("mlp.gate_proj", "self_attn.o_proj")
    ]
    text = next(line for line in lines if line.part == "text")
    assert text.adapters == 4
    assert text.trainable == 2 * (2 * (64 + 128) + 2 * (64 + 64))
    assert (
        text.parameters
        == next(line for line in open_parts(find("qwen2_5_vl").tiny(), {}) if line.part == "text").parameters
    )


def test_all_linear_layers_and_gpt2s_transposed_ones():
    family = find("vision_encoder_decoder").tiny()
    open_parts(family, {"vision": "lora", "bridge": "frozen", "text": "lora", "head": "frozen"})
    endings = {name.rpartition(".")[2] for name in adapters.layers(family)}
    assert {"c_attn", "c_proj", "c_fc"} < endings
    assert {family.part_of(name) for name in opened(family)} == {"vision", "text"}
    assert not any("pooler" in name for name in opened(family))  # nothing reads it


@pytest.mark.parametrize(
    ("family", "parts", "lora", "words"),
    [
        ("qwen2_5_vl", TEXT_ONLY, {"targets": ["qkv"]}, r'text = "lora".*hits nothing in text.*q_proj'),
        ("qwen2_5_vl", TEXT_ONLY, {"targets": ["q_proj", "vproj"]}, r"vproj hits nothing.*mean v_proj\?"),
        ("qwen2_5_vl", {"head": "lora"}, {}, "lm_head shares its weight with"),
        ("qwen2_5_vl", TEXT_ONLY, {"targets": ["embed_tokens"]}, "shares its weight"),
        ("cnn_rnn", {"text": "lora"}, {"targets": ["c_attn"]}, "hits nothing in text"),
    ],
)
def test_adapters_that_hit_nothing_or_cant_be_merged_are_errors(family, parts, lora, words):
    with pytest.raises(TrainingError, match=words):
        open_parts(find(family).tiny(["a red square"]), parts, LoraSettings(**lora))


def test_shapes_of_adapters_are_pefts():
    from peft.tuners.lora import LoraLayer

    family = find("qwen2_5_vl").tiny()
    open_parts(family, TEXT_ONLY, LoraSettings(r=4, alpha=8, dropout=0.2, rslora=True, dora=True, targets=["v_proj"]))
    layer = adapters.layers(family)["model.language_model.layers.0.self_attn.v_proj"]
    assert isinstance(layer, LoraLayer)
    assert layer.scaling["default"] == pytest.approx(8 / 2)  # alpha / √r
    assert layer.lora_dropout["default"].p == 0.2
    assert any("lora_magnitude_vector" in name for name in opened(family))


# ---- trained, saved, opened again


@pytest.mark.parametrize(
    ("name", "model", "lora"),
    [
        ("qwen2_5_vl", {}, {}),
        ("qwen2_5_vl", {}, {"dora": True}),
        ("qwen2_5_vl", {"quantize": "nf4"}, {}),
        ("qwen2_5_vl", {"quantize": "int8"}, {}),
        ("vision_encoder_decoder", {"quantize": "nf4"}, {}),
    ],
)
def test_what_was_trained_is_saved_small_and_says_the_same(dataset, tmp_path, name, model, lora):
    family = miniature(tmp_path / "base", name, **model)
    assert family.quantized == model.get("quantize")
    parts = {"vision": "frozen", "bridge": "full", "text": "lora", "head": "frozen"}
    before = say(family, dataset)
    verb.train(
        family,
        dataset,
        settings(parts=parts, lora={"r": 2} | lora, max_steps=3, lr=3e-2, warmup_steps=0),
        tmp_path / "train",
    )
    family.save(tmp_path / "light")
    said = say(family, dataset)
    assert said != before
    light = sum(p.stat().st_size for p in (tmp_path / "light").glob("*.safetensors"))
    whole = sum(p.numel() * 4 for p in find(name).tiny(["a red square"]).parameters())
    assert light < 0.4 * whole
    again = open_checkpoint(tmp_path / "light")
    assert again.quantized == family.quantized
    assert say(again, dataset) == said
    # merged into the base in full precision: the same, but for what quantising had taken away
    merged = open_checkpoint(tmp_path / "light", quantize="none")
    adapters.merge(merged)
    merged.save(tmp_path / "whole")
    whole_again = open_checkpoint(tmp_path / "whole")
    assert not adapters.layers(whole_again)
    if not model:
        assert say(whole_again, dataset) == said


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing")  # which peft reads
def test_other_tools_open_the_adapters(dataset, tmp_path):
    """peft itself, on a base that transformers opened."""
    from peft import PeftModel

    family = miniature(tmp_path / "base")
    verb.train(family, dataset, settings(parts=TEXT_ONLY, max_steps=3, lr=3e-2, warmup_steps=0), tmp_path / "train")
    family.save(tmp_path / "light")
    theirs = find("qwen2_5_vl").open(str(tmp_path / "base"))
    theirs.model = PeftModel.from_pretrained(theirs.model, str(tmp_path / "light")).base_model.model
    batch = family.collate(dataset.split("val"), with_targets=True)
    with torch.no_grad():
        assert float(theirs.eval()(batch).nll) == pytest.approx(float(family.eval()(batch).nll), rel=1e-6)


def test_training_goes_on_from_adapters(dataset, tmp_path):
    family = miniature(tmp_path / "base")
    verb.train(family, dataset, settings(parts=TEXT_ONLY, max_steps=2), tmp_path / "first")
    family.save(tmp_path / "light")
    again = open_checkpoint(tmp_path / "light")
    verb.train(again, dataset, settings(parts=TEXT_ONLY, max_steps=2), tmp_path / "second")
    again.save(tmp_path / "lighter")
    assert json.loads((tmp_path / "lighter/cutline.json").read_text())["base"] == str(tmp_path / "base")
    assert say(open_checkpoint(tmp_path / "lighter"), dataset) == say(again, dataset)


def test_a_new_models_adapters_are_merged(dataset, tmp_path):
    """There is no checkpoint that they could be laid over again."""
    family = find("vision_encoder_decoder").tiny(["a red square"])
    verb.train(family, dataset, settings(parts={"text": "lora"}, max_steps=2), tmp_path / "train")
    said = say(family, dataset)
    family.save(tmp_path / "model")
    assert say(open_checkpoint(tmp_path / "model"), dataset) == said


def test_a_base_that_is_gone_is_named(dataset, tmp_path):
    family = miniature(tmp_path / "base")
    open_parts(family, TEXT_ONLY)
    family.save(tmp_path / "light")
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="base"):
        open_checkpoint(tmp_path / "light")


# ---- quantised


def test_only_the_text_is_quantised(tmp_path):
    import bitsandbytes

    family = miniature(tmp_path, quantize="nf4")
    found = {name for name, m in family.model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert len(found) == 14
    assert {family.part_of(f"{name}.weight") for name in found} == {"text"}
    weight = family.model.model.language_model.layers[0].self_attn.q_proj.weight
    assert weight.quant_state.quant_type == "nf4"
    assert weight.quant_state.nested
    single = miniature(tmp_path, quantize="nf4", double_quantize=False, compute_dtype="bfloat16")
    layer = single.model.model.language_model.layers[0].self_attn.q_proj
    assert not layer.weight.quant_state.nested
    assert layer.compute_dtype == torch.bfloat16
    lines = {line.part: line for line in open_parts(family, TEXT_ONLY)}
    whole = {line.part: line for line in open_parts(find("qwen2_5_vl").tiny(["a red square"]), {})}
    assert lines["text"].parameters == whole["text"].parameters
    assert lines["text"].dtype == "float32, nf4"


@pytest.mark.parametrize("policy", ["full", "last:1"])
def test_quantised_weights_cant_be_trained_themselves(tmp_path, policy):
    with pytest.raises(TrainingError, match="quantised"):
        open_parts(miniature(tmp_path, quantize="nf4"), TEXT_ONLY | {"text": policy})


def test_impossible_quantisation_is_said_in_plain_words(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="can't be quantised"):
        parse({"family": "cnn_rnn", "new": {}, "quantize": "nf4"}, ModelSettings)
    with monkeypatch.context() as patch:
        patch.setattr(find("qwen2_5_vl"), "parts", {"vision": ""})
        with pytest.raises(CheckpointError, match="no linear layers to quantise"):
            miniature(tmp_path, quantize="nf4")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(CheckpointError, match=r"cutline\[bnb\]"):
            miniature(tmp_path, quantize="nf4")
    from cutline.families.weights.quantize import Quantization, check

    mps = Quantization("nf4", True, torch.float32, torch.device("mps"))
    if "mps" not in sys.modules["bitsandbytes"].supported_torch_devices:
        with pytest.raises(CheckpointError, match="can't quantise on mps"):
            check(mps)


def test_merging_into_quantised_matrices_is_refused(tmp_path):
    family = miniature(tmp_path, quantize="int8")
    open_parts(family, TEXT_ONLY)
    with pytest.raises(CheckpointError, match="be merged into quantised"):
        adapters.merge(family)
