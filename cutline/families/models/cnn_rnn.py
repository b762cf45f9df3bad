"""A captioner after Show, Attend and Tell (Xu et al. 2015): convolutional tower, attention over its grid, LSTM or GRU.

Any Hugging Face vision model that yields a feature map (or tokens) can be the tower, and the VGG of the paper is in
`vgg.py`. The parameters fall into four parts by the first word of their names: `encoder` (vision), `bridge`, `decoder`
(text), `head`.

`encode_images` takes pixels and everything after it takes features, so a frozen tower runs once per image and its
features are cached. With several captions of an image, `rows` says which image each caption belongs to and the bridge
runs once per image.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from cutline.core.errors import CheckpointError
from cutline.families.models.attentive_rnn import AttentiveDecoder, Bridge, Cell, Memory, RecurrentState
from cutline.families.models.cnn_rnn_config import CnnRnnConfig
from cutline.families.models.tower import as_cells, build_tower, channels_of, keep_statistics
from cutline.families.models.tower_split import SplitTower


class CnnRnnForConditionalGeneration(PreTrainedModel, GenerationMixin):
    config: CnnRnnConfig
    config_class = CnnRnnConfig
    base_model_prefix = "cnn_rnn"
    main_input_name = "pixel_values"
    _tied_weights_keys: ClassVar = {"head.weight": "decoder.embedding.weight"}

    def __init__(self, config: CnnRnnConfig) -> None:
        super().__init__(config)
        self.encoder = build_tower(config.vision_config)
        self.split: SplitTower | None = None  # of the tower, while its last layers are trained
        if config.feature_size is None:
            config.feature_size = channels_of(self.encoder)
        self.bridge = Bridge(config, config.feature_size)
        self.decoder = AttentiveDecoder(config)
        self.head = nn.Linear(config.embedding_size, config.vocab_size)
        self.post_init()
        # A caption is made of words: neither <unk> nor the markers that open or fill a row may be generated.
        never = {config.unk_token_id, config.pad_token_id, config.bos_token_id} - {None, config.eos_token_id}
        self.generation_config.suppress_tokens = sorted(never)

    @classmethod
    def from_tower(cls, tower: PreTrainedModel, **settings: Any) -> CnnRnnForConditionalGeneration:
        """A new captioner on a pretrained vision model, which it takes over; `settings` are those of CnnRnnConfig."""
        model = cls(CnnRnnConfig(vision_config=tower.config.to_dict(), **settings))
        model.encoder.load_state_dict(tower.state_dict(), strict=False)  # a pooler that we left out
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """For bridge, decoder and head; the tower initialises itself."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            table = torch.empty_like(module.weight).uniform_(-0.1, 0.1)
            if module.padding_idx is not None:
                table[module.padding_idx] = 0
            init.copy_(module.weight, table)
        elif isinstance(module, Cell):
            blocks = [nn.init.orthogonal_(block.clone()) for block in torch.split(module.recur.weight, module.size)]
            init.copy_(module.recur.weight, torch.cat(blocks))
            if module.kind == "lstm":  # an open forget gate lets the first steps learn (Jozefowicz et al. 2015)
                bias = torch.zeros_like(module.recur.bias)
                bias[module.size : 2 * module.size] = 1
                init.copy_(module.recur.bias, bias)
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True) -> CnnRnnForConditionalGeneration:
        super().train(mode)
        keep_statistics(self.encoder)
        return self

    def get_encoder(self, modality: str | None = None) -> PreTrainedModel:
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.decoder.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.head = new_embeddings

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # generate() then takes the past that forward() hands out, a RecurrentState

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [N, 3, height, width] -> features [N, T, C]: what can be cached while the tower is frozen.

        Of a divided tower it is what the lower half gives, in that half's own shape.
        """
        if self.split is not None:
            lower: torch.Tensor = self.split.lower(pixel_values).last_hidden_state
            return lower
        return as_cells(self.encoder(pixel_values).last_hidden_state)

    def remember(self, features: torch.Tensor) -> Memory:
        """What `encode_images` gave -> the memory of each image; the upper half of a divided tower runs here."""
        if self.split is not None:
            if features.dim() == 4:
                features = features.contiguous(memory_format=torch.channels_last)
            features = self.split.upper(features).last_hidden_state
        memory: Memory = self.bridge(as_cells(features))
        return memory

    def decode_teacher(
        self,
        features: torch.Tensor,
        decoder_input_ids: torch.Tensor,
        rows: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher forcing: the deep outputs [R, L, E], which `head` turns into logits, and attention weights [R, L, T].

        features [N, T, C]; decoder_input_ids [R, L]; rows [R], the image of each caption (by default R = N, one each);
        lengths [R], the steps of each caption that are asked for: later ones are skipped and mean nothing.
        """
        return self._teach(self.remember(features), decoder_input_ids, rows, lengths)

    def attention_penalty(self, alphas: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Doubly stochastic regularisation (Xu et al., equation 14): how far each cell is from being looked at once.

        alphas [R, L, T], mask [R, L] true at real steps -> [R], the mean over the cells of each row, without weight.
        """
        looked = (alphas * mask[..., None]).sum(1)  # [R, T]
        return (1 - looked).square().mean(1)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        encoder_outputs: Memory | BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
        past_key_values: RecurrentState | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Loss, logits and attention weights of captions, or one step of generation.

        One of pixel_values [N, 3, height, width], features [N, T, C] or encoder_outputs; decoder_input_ids [R, L] or
        labels [R, L] (-100 where nothing is asked), from which they are made by one shift; rows [R], the image of each
        caption. With labels, logits after a row's last label mean nothing.

        loss: mean cross-entropy (nats a label) plus the weighted penalty. cross_attentions: one tensor [R, 1, L, T].
        decoder_hidden_states: the deep outputs [R, L, E].
        """
        memory = self._memory(pixel_values, features, encoder_outputs)
        if decoder_input_ids is None:
            if labels is None:
                raise CheckpointError("cnn_rnn got neither labels nor decoder_input_ids.", "Give one of them.")
            decoder_input_ids = self._shift_right(labels)
        state = None
        if labels is not None:
            places = torch.arange(1, labels.shape[1] + 1, device=labels.device)
            lengths = (labels.ne(-100) * places).amax(1)  # up to the last label of each row
            outputs, alphas = self._teach(memory, decoder_input_ids, rows, lengths)
        else:
            memory = memory if rows is None else memory.rows(rows)
            outputs, alphas, state = self.decoder(memory, decoder_input_ids, past_key_values)
        logits = self.head(outputs)  # [R, L, V]
        loss = None
        if labels is not None:
            penalty = self.attention_penalty(alphas, labels.ne(-100)).mean()
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten()) + self.config.doubly_stochastic * penalty
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=state if use_cache else None,
            decoder_hidden_states=(outputs,),
            cross_attentions=(alphas[:, None],),
            encoder_last_hidden_state=memory.last_hidden_state,
        )

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        encoder_outputs: Memory | BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in Hugging Face models, from pixel_values or, in their place, features [N, T, C] or encoder_outputs.

        Tower and bridge run once per image, before `generate` makes a row of every beam.
        """
        pixels = kwargs.pop("pixel_values", inputs)
        # A copy, because generate() repeats each tensor of encoder_outputs in place, once for each beam.
        memory = Memory(**self._memory(pixels, features, encoder_outputs))
        return super().generate(encoder_outputs=memory, **kwargs)

    def _memory(
        self,
        pixel_values: torch.Tensor | None,
        features: torch.Tensor | None,
        encoder_outputs: Memory | BaseModelOutput | tuple[torch.Tensor, ...] | None,
    ) -> Memory:
        """Whatever is known of the images, as memory."""
        if isinstance(encoder_outputs, Memory):
            return encoder_outputs
        if encoder_outputs is not None:
            features = encoder_outputs[0]
        elif features is None:
            if pixel_values is None:
                raise CheckpointError("cnn_rnn got no image.", "Give pixel_values, features or encoder_outputs.")
            features = self.encode_images(pixel_values)
        return self.remember(features)

    def _teach(
        self, memory: Memory, ids: torch.Tensor, rows: torch.Tensor | None, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As decode_teacher, from the memory. Longest rows first, so that each step works on the rows that go on."""
        if lengths is None:
            outputs, alphas, _ = self.decoder(memory if rows is None else memory.rows(rows), ids)
            return outputs, alphas
        order = lengths.argsort(descending=True)
        alive = (lengths[:, None] > torch.arange(ids.shape[1], device=ids.device)).sum(0).tolist()
        memory = memory.rows(order if rows is None else rows[order])
        outputs, alphas, _ = self.decoder(memory, ids[order], alive=alive)
        back = order.argsort()
        return outputs[back], alphas[back]

    def _shift_right(self, labels: torch.Tensor) -> torch.Tensor:
        """labels [R, L] -> decoder_input_ids [R, L]: the start token, then all labels but the last, without -100."""
        start = labels.new_full((labels.shape[0], 1), self.config.decoder_start_token_id)
        ids = torch.cat([start, labels[:, :-1]], dim=1)
        return ids.masked_fill(ids == -100, self.config.pad_token_id)
