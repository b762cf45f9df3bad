"""The CNN + RNN captioner, with random miniature towers."""

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, MobileNetV2Config, ResNetConfig, ViTConfig
from transformers.modeling_outputs import BaseModelOutput

from cutline.core.errors import CheckpointError
from cutline.families.models.cnn_rnn import CnnRnnForConditionalGeneration
from cutline.families.models.cnn_rnn_config import CnnRnnConfig
from cutline.families.models.vgg import VggConfig, VggModel

BOS, PAD, EOS, UNK = range(4)
TOWERS = {
    "mobilenet": (MobileNetV2Config(depth_multiplier=0.25, finegrained_output=True), 4, 1280),
    "resnet": (ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"), 64, 16),
    "vgg": (VggConfig(depth=11, widths=[4, 4, 8, 8, 12]), 16, 12),
    "vit": (
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=64,
            patch_size=32,
        ),
        5,
        16,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(tower="resnet", **settings):
    torch.manual_seed(0)
    sizes = {"embedding_size": 12, "hidden_size": 10, "memory_size": 14, "attention_size": 6, "vocab_size": 30}
    config = CnnRnnConfig(vision_config=TOWERS[tower][0].to_dict(), **{**sizes, **settings})
    model = CnnRnnForConditionalGeneration(config).eval()
    with torch.no_grad():  # weights as fresh as these would make all images say the same
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(torch.randn_like(parameter) * 0.5)
    return model


@pytest.fixture(scope="module", params=["lstm", "gru"])
def model(request):
    return build(cell=request.param)


@pytest.fixture(scope="module")
def features():
    return torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(1))


IDS = torch.tensor([[BOS, 4, 5, 6, 7], [BOS, 8, 9, PAD, PAD], [BOS, 10, 11, 12, PAD], [BOS, 4, 4, 4, 4]])


@pytest.mark.parametrize("tower", TOWERS)
def test_any_tower_gives_cells_and_captions(tower):
    model = build(tower)
    _, cells, channels = TOWERS[tower]
    pixels = torch.randn(2, 3, 64, 64)
    assert model.encode_images(pixels).shape == (2, cells, channels)
    assert model.config.feature_size == channels
    assert model.generate(pixel_values=pixels, max_new_tokens=4).shape[0] == 2


def test_cells_keep_their_vector():
    model = build("resnet")
    pixels = torch.randn(1, 3, 64, 64)
    grid = model.encoder(pixels).last_hidden_state
    assert torch.equal(model.encode_images(pixels)[0, 1 * grid.shape[3] + 2], grid[0, :, 1, 2])


def test_parameters_fall_into_four_parts():
    names = {name.split(".")[0] for name, _ in build().named_parameters()}
    assert names == {"encoder", "bridge", "decoder", "head"}


@pytest.mark.parametrize("attention", ["additive", "dot"])
@pytest.mark.parametrize("gate", ["scalar", "channel"])
def test_every_trainable_parameter_learns(attention, gate, features):
    model = build(attention=attention, gate=gate)
    model.encoder.requires_grad_(False)
    model(features=features, labels=IDS.masked_fill(IDS == PAD, -100)).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []


def test_a_batch_equals_its_rows(model, features):
    together, alphas = model.decode_teacher(features, IDS)
    for row in range(4):
        alone, alone_alphas = model.decode_teacher(features[row : row + 1], IDS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])
        torch.testing.assert_close(alone_alphas[0], alphas[row])
    captions = model.generate(features=features, num_beams=3, max_new_tokens=6)
    for row in range(4):
        alone = model.generate(features=features[row : row + 1], num_beams=3, max_new_tokens=6)[0]
        assert alone.tolist() == captions[row, : len(alone)].tolist()
        assert (captions[row, len(alone) :] == PAD).all()


def test_padding_and_later_words_change_nothing_before_them(model, features):
    short, _ = model.decode_teacher(features[1:2], IDS[1:2, :3])
    other = IDS[1:2].clone()
    other[:, 3:] = 17
    long, _ = model.decode_teacher(features[1:2], other)
    torch.testing.assert_close(short, long[:, :3])


def test_steps_beyond_a_captions_length_can_be_skipped(model, features):
    lengths = torch.tensor([2, 3, 5, 1])
    outputs, alphas = model.decode_teacher(features, IDS)
    short, short_alphas = model.decode_teacher(features, IDS, lengths=lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(short[row, :length], outputs[row, :length])
        torch.testing.assert_close(short_alphas[row, :length], alphas[row, :length])
    rows = torch.tensor([0, 0, 2, 1])
    shared, _ = model.decode_teacher(features[:3], IDS, rows, lengths)
    apart, _ = model.decode_teacher(features[rows], IDS, lengths=lengths)
    torch.testing.assert_close(shared, apart)


def test_padding_has_no_part_in_the_loss(model, features):
    labels = torch.tensor([[8, 9, EOS]])
    padded = torch.tensor([[8, 9, EOS, -100, -100]])
    torch.testing.assert_close(
        model(features=features[:1], labels=labels).loss, model(features=features[:1], labels=padded).loss
    )


def test_captions_of_one_image_share_its_memory(model, features):
    rows = torch.tensor([0, 0, 2, 1])
    shared = model.decode_teacher(features[:3], IDS, rows)
    apart = model.decode_teacher(features[rows], IDS)
    torch.testing.assert_close(shared, apart)


def test_half_precision_features_are_accepted(model, features):
    full, _ = model.decode_teacher(features, IDS)
    half, _ = model.decode_teacher(features.half(), IDS)
    torch.testing.assert_close(half, full, atol=2e-2, rtol=2e-2)


def test_the_loss_is_the_cross_entropy_of_the_shifted_labels_plus_the_penalty(model, features):
    labels = torch.tensor([[4, 5, EOS], [6, EOS, -100]])
    out = model(features=features[:2], labels=labels)
    inputs = torch.tensor([[BOS, 4, 5], [BOS, 6, EOS]])
    hidden, alphas = model.decode_teacher(features[:2], inputs)
    entropy = F.cross_entropy(model.head(hidden).flatten(0, 1), labels.flatten())
    looked = [alphas[0].sum(0), alphas[1, :2].sum(0)]
    penalty = sum((1 - cells).square().mean() for cells in looked) / 2
    torch.testing.assert_close(out.loss, entropy + model.config.doubly_stochastic * penalty)


def test_attention_weights_are_handed_out(model, features):
    out = model(features=features, decoder_input_ids=IDS)
    assert out.cross_attentions[0].shape == (4, 1, 5, 9)
    torch.testing.assert_close(out.cross_attentions[0].sum(-1), torch.ones(4, 1, 5))


def test_pixels_features_and_encoder_outputs_say_the_same():
    model = build("vgg")
    pixels = torch.randn(2, 3, 64, 64)
    features = model.encode_images(pixels)
    calls = [
        {"pixel_values": pixels},
        {"inputs": pixels},
        {"features": features},
        {"encoder_outputs": BaseModelOutput(last_hidden_state=features)},
    ]
    captions = [model.generate(num_beams=2, max_new_tokens=5, **call).tolist() for call in calls]
    assert all(caption == captions[0] for caption in captions)


def test_the_tower_runs_once_for_a_generated_batch(monkeypatch):
    model = build("vgg")
    seen = []
    forward = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda *a, **k: seen.append(len(a[0])) or forward(*a, **k))
    model.generate(pixel_values=torch.randn(2, 3, 64, 64), num_beams=3, max_new_tokens=5)
    assert seen == [2]


def test_the_recurrent_state_says_what_the_whole_prefix_says(model, features):
    with_state = model.generate(features=features, max_new_tokens=6)
    without = model.generate(features=features, max_new_tokens=6, use_cache=False)
    assert with_state.tolist() == without.tolist()


def slow_beam_search(model, features, beams, steps, length_penalty):
    """Every prefix anew, one at a time; a caption's score is its log probability over its length to the penalty."""
    running, finished = [([BOS], 0.0)], []
    banned = model.generation_config.suppress_tokens
    for step in range(1, steps + 1):
        grown = []
        for ids, score in running:
            hidden, _ = model.decode_teacher(features, torch.tensor([ids]))
            log_probs = model.head(hidden[0, -1]).log_softmax(-1)
            log_probs[banned] = -math.inf
            grown += [([*ids, token], score + value) for token, value in enumerate(log_probs.tolist())]
        grown = sorted(grown, key=lambda pair: -pair[1])[: 2 * beams]
        best = grown[:beams]
        finished += [(ids, score / step**length_penalty) for ids, score in best if ids[-1] == EOS or step == steps]
        running = [pair for pair in grown if pair[0][-1] != EOS][:beams]
    return max(finished, key=lambda pair: pair[1])[0]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beam_search_equals_a_slow_obvious_one(model, features, length_penalty):
    lengths = set()
    for eos_bias in (0.0, 2.0, 5.0):  # long captions and short ones
        with torch.no_grad():
            model.head.bias[EOS] += eos_bias
            fast = model.generate(
                features=features, num_beams=3, max_new_tokens=6, length_penalty=length_penalty, early_stopping="never"
            )
            slow = [slow_beam_search(model, features[n : n + 1], 3, 6, length_penalty) for n in range(4)]
            model.head.bias[EOS] -= eos_bias
        assert [row[: len(ids)] for row, ids in zip(fast.tolist(), slow, strict=True)] == slow
        lengths |= {len(ids) for ids in slow}
    assert len(lengths) > 1


def test_beam_search_has_room_for_better_captions_than_greedy(model, features):
    def log_probability(ids):
        labels = ids[:, 1:].masked_fill(ids[:, 1:] == PAD, -100)
        logits = model(features=features, decoder_input_ids=ids[:, :-1]).logits
        return -F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum")

    settings = {"features": features, "max_new_tokens": 6, "length_penalty": 0.0}
    assert log_probability(model.generate(num_beams=4, **settings)) >= log_probability(model.generate(**settings))


def test_sampling_follows_its_seed(model, features):
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(model.generate(features=features, do_sample=True, max_new_tokens=8).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_unknown_words_and_markers_are_never_generated(features):
    model = build()
    with torch.no_grad():
        model.head.bias[[BOS, PAD, UNK]] += 100
    for settings in ({}, {"num_beams": 3}, {"do_sample": True}):
        ids = model.generate(features=features, max_new_tokens=8, **settings)[:, 1:]
        words = [row[: row.index(EOS)] if EOS in row else row for row in ids.tolist()]
        assert not any({PAD, BOS, UNK} & set(row) for row in words)


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_says_the_same(tied, tmp_path):
    model = build("vgg", tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    again = CnnRnnForConditionalGeneration.from_pretrained(tmp_path)
    pixels, labels = torch.randn(2, 3, 64, 64), torch.tensor([[4, 5, EOS], [6, EOS, -100]])
    torch.testing.assert_close(model(pixels, labels=labels).logits, again(pixels, labels=labels).logits)
    assert again.generation_config.suppress_tokens == [BOS, PAD, UNK]
    assert (again.head.weight is again.decoder.embedding.weight) == tied
    assert type(AutoConfig.from_pretrained(tmp_path)) is CnnRnnConfig


def test_a_tower_is_taken_over_with_its_weights():
    tower = AutoModel.from_config(TOWERS["resnet"][0]).eval()
    model = CnnRnnForConditionalGeneration.from_tower(tower, vocab_size=30, hidden_size=10).eval()
    pixels = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.encode_images(pixels)[0].T, tower(pixels).last_hidden_state.flatten(2)[0])


def test_training_mode_leaves_the_tower_as_it_was():
    model = build("resnet")
    pixels = torch.randn(3, 3, 64, 64)
    before = model.encode_images(pixels)
    model.train()
    assert torch.equal(model.encode_images(pixels), before)
    assert model.decoder.training


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_two_captions_can_be_learnt_by_heart(cell, features):
    model = build(cell=cell, dropout=0.0, feature_dropout=0.0, doubly_stochastic=0.0, hidden_size=24)
    model.encoder.requires_grad_(False)
    labels = torch.tensor([[4, 5, 6, 7, EOS], [4, 8, 9, EOS, -100]])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    model.train()
    for _ in range(60):
        loss = model(features=features[:2], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    said = model.eval().generate(features=features[:2], num_beams=2, max_new_tokens=8)[:, 1:]
    assert said.tolist() == labels.masked_fill(labels == -100, PAD).tolist()


@pytest.mark.parametrize(("depth", "convolutions"), [(11, 8), (13, 10), (16, 13), (19, 16)])
def test_vgg_has_its_published_layout(depth, convolutions):
    with torch.device("meta"):
        model = VggModel(VggConfig(depth=depth))
    layers = [layer for layer in model.features if isinstance(layer, torch.nn.Conv2d)]
    assert len(layers) == convolutions
    # The published counts of the four networks, less the 123,642,856 parameters of their fully connected layers.
    whole = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}[depth]
    assert sum(p.numel() for p in model.parameters()) == whole - 123_642_856
    assert model(torch.zeros(1, 3, 224, 224, device="meta")).last_hidden_state.shape == (1, 512, 14, 14)


@pytest.mark.parametrize("wrong", [{"cell": "rnn"}, {"attention": "hard"}, {"gate": "none"}])
def test_an_unknown_choice_names_the_choices(wrong):
    with pytest.raises(CheckpointError, match="Choose"):
        CnnRnnConfig(**wrong)


def test_an_unknown_vgg_names_the_depths():
    with pytest.raises(CheckpointError, match="11, 13, 16, 19"):
        VggConfig(depth=18)
