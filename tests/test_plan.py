"""``cutline plan``: parameters of the recipes' models, counted without weights, against published and known figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cutline.cli.plan import plan as plan_command
from cutline.core.config import load, read_toml
from cutline.core.errors import CheckpointError
from cutline.families.settings import LoraSettings, ModelSettings
from cutline.run.recipe import Recipe
from cutline.train.plan import config_of, outline, plan
from cutline.train.settings import TrainSettings
from cutline.train.trainable import partition

RECIPES = Path(__file__).parent.parent / "recipes"
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

TOTALS = {
    "Salesforce/blip2-opt-2.7b": 3_744_761_856,
    "Salesforce/blip2-flan-t5-xl": 3_942_446_592,
    "Salesforce/blip-image-captioning-base": 223_971_644,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "google/paligemma-3b-pt-224": 2_923_466_480,
    "google/gemma-3-12b-it": 12_187_325_040,
    "OpenGVLab/InternVL3-8B-hf": 7_944_373_760,
    "nlpconnect/vit-gpt2-image-captioning": 239_195_904,
}


@pytest.mark.parametrize("checkpoint", TOTALS)
def test_totals_are_those_of_the_real_checkpoints(checkpoint):
    (counted,) = plan(ModelSettings(checkpoint=checkpoint), None)
    assert counted.parameters == TOTALS[checkpoint]
    assert counted.trainable == 0


@pytest.mark.parametrize(("checkpoint", "size"), [("1B", 1_235_814_400), ("3B", 3_212_749_824)])
def test_llama_behind_a_projector(checkpoint, size):
    new = {"vision": "google/vit-base-patch16-224-in21k", "text": f"meta-llama/Llama-3.2-{checkpoint}-Instruct"}
    family = outline(ModelSettings(family="vision_prefix", new=new))
    counts = {part: sum(p.numel() for _, p in found) for part, found in partition(family).items()}
    assert counts["text"] + counts["head"] == size
    assert counts["vision"] == 85_798_656  # ViT-base without its pooler


def adapters(checkpoint, rank, targets, parts):
    policies = {"vision": "frozen", "bridge": "frozen", "text": "frozen", "head": "frozen"} | parts
    train = TrainSettings(parts=policies, lora=LoraSettings(r=rank, targets=targets))
    (counted,) = plan(ModelSettings(checkpoint=checkpoint), train)
    return counted.trainable


def test_system_a_trains_the_q_former_and_the_last_layer():
    parts = {"vision": "frozen", "bridge": "full", "projection": "frozen", "text": "last:1", "head": "full"}
    (counted,) = plan(ModelSettings(checkpoint="Salesforce/blip2-opt-2.7b"), TrainSettings(parts=parts))
    assert counted.trainable == 183_814_144
    trained = {line.part: line.trainable for line in counted.parts if line.trainable}
    assert trained == {"bridge": 105_137_664, "text": 78_676_480}


def test_adapters_of_the_language_model_only():
    """By suffix, as peft takes a list of names, namesakes in the tower get adapters too: 3,609,600 of Qwen2.5-VL's
    23,794,688, and 3,981,312 of PaliGemma's 7,667,712."""
    qwen, paligemma = "Qwen/Qwen2.5-VL-7B-Instruct", "google/paligemma-3b-pt-224"
    assert adapters(qwen, 8, SEVEN, {"text": "lora"}) == 20_185_088 == 23_794_688 - 3_609_600
    assert adapters(paligemma, 32, ["q_proj", "v_proj"], {"text": "lora"}) == 3_686_400
    assert adapters(paligemma, 32, ["q_proj", "v_proj"], {"text": "lora", "vision": "lora"}) == 7_667_712


def hangs_on_captions(path):
    """Whether the recipe builds a text part of its own, whose vocabulary comes from the captions, or opens one that
    another command makes of them."""
    new = read_toml(path)["model"].get("new")
    return new is not None and new.get("text", "runs/").startswith("runs/")


COUNTED = sorted(path for path in RECIPES.glob("*.toml") if not hangs_on_captions(path))


@pytest.mark.parametrize("recipe", COUNTED, ids=lambda path: path.stem)
def test_recipes_can_be_counted(recipe):
    wanted = load(recipe, Recipe)
    stages = plan(wanted.model, wanted.train)
    assert all(stage.parameters > 1e8 for stage in stages)
    assert all((stage.trainable > 0) == (wanted.train is not None) for stage in stages)
    if wanted.train and wanted.train.align:
        assert [stage.stage for stage in stages] == ["align", "train"]
        assert stages[0].trainable < stages[1].trainable


def test_nothing_is_allocated():
    family = outline(ModelSettings(checkpoint="google/paligemma-3b-pt-224"))
    assert {p.device for p in family.model.parameters()} == {torch.device("meta")}


def test_folders_are_read(tmp_path):
    config = config_of("nlpconnect/vit-gpt2-image-captioning")
    config.save_pretrained(tmp_path)
    (counted,) = plan(ModelSettings(checkpoint=str(tmp_path)), None)
    assert counted.parameters == 239_195_904


def test_unknown_checkpoints_say_which_are_built_in():
    with pytest.raises(CheckpointError, match="neither built in nor") as refused:
        plan(ModelSettings(checkpoint="no/such"), None)
    assert "google/paligemma-3b-pt-224" in refused.value.remedy


def test_a_size_that_depends_on_the_captions_is_an_error():
    with pytest.raises(CheckpointError, match="depends on its training captions"):
        plan(ModelSettings(family="cnn_rnn", new={"vgg": 11}), None)


def test_verb_prints_a_table_and_json(capsys):
    recipe = RECIPES / "risc-paligemma-lora-r32.toml"
    plan_command(recipe, [], as_json=False)
    table = capsys.readouterr().out
    assert "2,923,466,480" in table
    assert "3,686,400" in table
    plan_command(recipe, [], as_json=True)
    (stage,) = json.loads(capsys.readouterr().out)
    assert stage["trainable"] == 3_686_400
