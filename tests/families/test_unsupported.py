"""Checkpoints that no family opens are refused with the reason and the name of one that opens."""

from __future__ import annotations

import json
import re

import pytest
from transformers import PretrainedConfig

from cutline import families
from cutline.core.errors import CheckpointError
from cutline.families.open import family_of
from cutline.families.settings import ModelSettings
from cutline.families.unsupported import _INSTEAD

REMOTE = {"auto_map": {"AutoModel": "modeling.Model"}}
CASES = {
    "InternVL's own code": ({"model_type": "internvl_chat", **REMOTE}, "remote code", "InternVL3-8B-hf"),
    "LLaVA's own code": ({"model_type": "llava_qwen"}, "no family", "llava-onevision-qwen2-7b-ov-hf"),
    "Florence-2's own code": ({"model_type": "florence2", **REMOTE}, "remote code", "florence-community"),
    "text only": ({"model_type": "llama"}, "no family", "vision_prefix"),
    "Gemma 3 without a vision tower": ({"model_type": "gemma3_text"}, "no family", "gemma-3-4b-it"),
    "something else": ({"model_type": "resnet"}, "type 'resnet'", "Available families: .*paligemma"),
}


@pytest.mark.parametrize("case", CASES)
def test_folders_are_refused_with_what_to_give_instead(case, tmp_path):
    config, problem, remedy = CASES[case]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=problem) as refused:
        family_of(ModelSettings(checkpoint=str(tmp_path)))
    assert re.search(remedy, refused.value.remedy)


def test_hub_checkpoints_are_refused_without_running_their_code(monkeypatch):
    config = {"model_type": "internvl_chat", **REMOTE}
    monkeypatch.setattr(PretrainedConfig, "get_config_dict", classmethod(lambda cls, name, **how: (config, {})))
    with pytest.raises(CheckpointError, match="remote code") as refused:
        family_of(ModelSettings(checkpoint="OpenGVLab/InternVL3-8B"))
    assert "OpenGVLab/InternVL3-8B-hf" in refused.value.remedy


def test_types_that_a_family_has_are_opened(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "paligemma"}))
    assert family_of(ModelSettings(checkpoint=str(tmp_path))).name() == "paligemma"


def test_advice_is_for_types_that_no_family_has():
    assert not set(_INSTEAD) & set(families.names())
