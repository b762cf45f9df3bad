"""Rates, optimisers, schedules, precision and recomputation: each does what its key says."""

from __future__ import annotations

import math

import pytest
import torch

from cutline.core import jsonl
from cutline.core.errors import TrainingError
from cutline.families.open import find
from cutline.families.settings import LoraSettings
from cutline.families.weights import adapters
from cutline.train import log
from cutline.train import train as verb
from cutline.train.gradient_checkpointing import gradient_checkpointing
from cutline.train.trainable import open_parts
from tests.train.test_training import same, settings, vit_gpt2, weights


def rates(folder) -> list[float]:
    return [row["lr"] for row in jsonl.read(folder / "log.jsonl") if "lr" in row]


def test_each_part_has_its_learning_rate(dataset, tmp_path, monkeypatch):
    seen: list[dict[str | None, float]] = []
    real = log.Log.on_step_end

    def on_step_end(self, args, state, control, optimizer=None, **rest):
        names = {id(p): name for name, p in family.model.named_parameters()}
        groups = [{family.part_of(names[id(p)]) for p in group["params"]} for group in optimizer.param_groups]
        assert all(len(group) == 1 or not group & {"bridge", "vision"} for group in groups)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names) - 2  # the unused pooler
        seen.append(
            {part: group["lr"] for parts, group in zip(groups, optimizer.param_groups, strict=True) for part in parts}
        )
        real(self, args, state, control, optimizer=optimizer, **rest)

    monkeypatch.setattr(log.Log, "on_step_end", on_step_end)
    family = vit_gpt2()
    changes = {"part_lr": {"bridge": 0.02, "vision": 0.001}, "warmup_steps": 0, "lr": 0.01, "min_lr": 0.005}
    verb.train(family, dataset, settings(**changes), tmp_path)
    for row in seen:
        assert row["bridge"] == pytest.approx(2 * row["text"])
        assert row["vision"] == pytest.approx(0.1 * row["text"])
    assert seen[-1]["text"] == pytest.approx(0.005)  # the floor; the other parts' in proportion


def test_a_rate_of_an_unknown_part_is_named(dataset, tmp_path):
    with pytest.raises(TrainingError, match=r"part_lr\] visoin.*mean vision"):
        verb.train(vit_gpt2(), dataset, settings(part_lr={"visoin": 0.1}), tmp_path)


def test_cosine_rises_falls_and_stays_above_its_floor(dataset, tmp_path):
    verb.train(vit_gpt2(), dataset, settings(lr=0.01, warmup_steps=2, min_lr=0.002, max_steps=8), tmp_path)
    found = rates(tmp_path)
    cosine = [0.002 + 0.008 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(7)]
    assert found == pytest.approx([0.0, 0.005, *cosine[:6]]) or found == pytest.approx([0.005, 0.01, *cosine[1:]])


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_optimisers_in_8_bits_and_paged(dataset, tmp_path, optimizer):
    pytest.importorskip("bitsandbytes")
    family = vit_gpt2()
    before = weights(family)
    verb.train(family, dataset, settings(optimizer=optimizer, max_steps=3), tmp_path)
    assert not same(before, weights(family))
    assert torch.isfinite(torch.cat([w.flatten() for w in weights(family).values()])).all()


# ---- precision


def dtypes_in_training(family, dataset, folder, monkeypatch, **changes) -> tuple[set[torch.dtype], set[torch.dtype]]:
    """What the decoder's matrices are multiplied in, and what the trained weights are kept in."""
    inside: set[torch.dtype] = set()
    kept: set[torch.dtype] = set()
    layer = family.model.decoder.transformer.h[0].mlp.c_fc
    layer.register_forward_hook(lambda module, given, made: inside.add(made.dtype))
    real = log.Log.on_step_end

    def on_step_end(self, args, state, control, **rest):
        kept.update(p.dtype for p in family.parameters() if p.requires_grad)
        real(self, args, state, control, **rest)

    monkeypatch.setattr(log.Log, "on_step_end", on_step_end)
    verb.train(family, dataset, settings(max_steps=2, **changes), folder)
    return inside, kept


@pytest.mark.parametrize("weights_in", [torch.float32, torch.bfloat16])
def test_bfloat16_multiplies_in_16_bits_and_keeps_masters_in_32(dataset, tmp_path, monkeypatch, weights_in):
    family = vit_gpt2().to(weights_in)
    changes = {"precision": "bfloat16", "parts": {"vision": "frozen"}}
    inside, kept = dtypes_in_training(family, dataset, tmp_path, monkeypatch, **changes)
    assert inside == {torch.bfloat16}
    assert kept == {torch.float32}
    assert family.dtype == weights_in  # the frozen tower's


def test_float32_means_everything(dataset, tmp_path, monkeypatch):
    family = vit_gpt2().to(torch.bfloat16)
    inside, kept = dtypes_in_training(
        family, dataset, tmp_path, monkeypatch, precision="float32", parts={"vision": "frozen"}
    )
    assert inside == kept == {torch.float32} == {p.dtype for p in family.parameters()}


def test_float16_without_a_gpu_is_refused_in_plain_words(dataset, tmp_path):
    with pytest.raises(TrainingError, match='float16" needs a GPU'):
        verb.train(vit_gpt2(), dataset, settings(precision="float16"), tmp_path)


# ---- recomputation


def gradients(family, dataset, parts, wanted: bool):
    torch.manual_seed(0)
    open_parts(family, parts, LoraSettings(r=2, dropout=0.0))
    for name, parameter in family.model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide A's gradient
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    kept = 0

    def pack(tensor):
        nonlocal kept
        kept += tensor.numel()
        return tensor

    batch = family.collate(dataset.split("train")[:4], with_targets=True)
    with gradient_checkpointing(family, wanted):
        family.train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = family(batch).nll
        loss.backward()
    return {n: p.grad.clone() for n, p in family.model.named_parameters() if p.grad is not None}, kept


ADAPTERS = {"vision": "frozen", "bridge": "frozen", "text": "lora", "head": "frozen"}
BRIDGE = {"vision": "frozen", "bridge": "full", "text": "frozen", "head": "frozen"}


@pytest.mark.parametrize("name", ["qwen2_5_vl", "vision_encoder_decoder"])
@pytest.mark.parametrize("parts", [ADAPTERS, BRIDGE], ids=["adapters", "bridge under a frozen model"])
def test_recomputed_gradients_are_the_same_and_less_is_kept(dataset, name, parts):
    plain, kept = gradients(find(name).tiny(seed=3), dataset, parts, wanted=False)
    family = find(name).tiny(seed=3)
    recomputed, kept_then = gradients(family, dataset, parts, wanted=True)
    assert plain.keys() == recomputed.keys()
    assert all(float(gradient.abs().max()) > 0 for gradient in plain.values())
    for key, gradient in plain.items():
        torch.testing.assert_close(recomputed[key], gradient, rtol=1e-4, atol=1e-7)
    assert kept_then < 0.7 * kept
    again, kept_after = gradients(family, dataset, parts, wanted=False)  # nothing of it stays behind
    assert again
    assert kept_after > 0.9 * kept


def test_a_whole_training_with_adapters_is_the_same_with_recomputation(dataset, tmp_path):
    found = []
    for wanted in (False, True):
        family = find("qwen2_5_vl").tiny(seed=3)
        changes = {
            "parts": ADAPTERS,
            "lora": {"r": 2, "dropout": 0.0},
            "optimizer": "sgd",
            "lr": 0.1,
            "warmup_steps": 0,
        }
        verb.train(
            family, dataset, settings(max_steps=2, gradient_checkpointing=wanted, **changes), tmp_path / str(wanted)
        )
        assert adapters.layers(family)
        found.append({n: p for n, p in weights(family).items() if adapters.is_adapter(n)})
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=1e-4, atol=1e-6)
