"""Any vision tower and any causal language model joined by a trained projector: the image is tokens in the text.

Sources: Frozen (Tsimpoukelli et al. 2021, arXiv:2106.13884) put an image's features in front of a language model as a
prefix; LLaVA-1.5 (Liu et al. 2023, arXiv:2310.03744) projects each patch by a small MLP, and trains the projector alone
before the language model is opened. The parameters fall into `vision_tower`, `projector` and `language_model`.

Letters in shape comments: N images, R rows of text, T cells of the tower, P tokens an image, L text tokens, C channels
of the tower, D width of the language model.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import CausalLMOutputWithPast

from cutline.core.errors import CheckpointError
from cutline.families.models.tower import as_cells, build_tower, channels_of, keep_statistics

PROJECTORS = ("mlp", "linear")


class VisionPrefixConfig(PreTrainedConfig):
    """The settings of a VisionPrefixForConditionalGeneration.

    vision_config, text_config: the two models' own configs, or their dicts with `model_type`. feature_size: channels of
    the tower; None: found out. projector: "mlp" (two layers with GELU between) or "linear". projector_size: width
    between the two layers; None: the language model's. merge: merge × merge neighbouring cells of the tower become one
    token; above 1 the tower must say a square grid, and a class token in front of it is left out. dropout: on the
    tower's features. image_token_id: the id that stands where an image's tokens go; it may lie beyond the language
    model's vocabulary, since its embedding is never read.
    """

    model_type = "vision_prefix"
    sub_configs_defaults: ClassVar = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="vit"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: PreTrainedConfig | dict[str, Any] | None = None
    text_config: PreTrainedConfig | dict[str, Any] | None = None
    feature_size: int | None = None
    projector: str = "mlp"
    projector_size: int | None = None
    merge: int = 1
    dropout: float = 0.0
    image_token_id: int = 0
    tie_word_embeddings: bool = False  # the language model's own config says whether its head is tied

    def __post_init__(self, **kwargs: Any) -> None:
        if self.projector not in PROJECTORS:
            raise CheckpointError(
                f"projector = {self.projector!r} is not known to vision_prefix.", f"Choose {' or '.join(PROJECTORS)}."
            )
        super().__post_init__(**kwargs)


class Projector(nn.Module):
    """Cells of the tower [N, T, C] → tokens of the language model [N, P, D].

    A layer norm in front frees it of the tower's scale, which differs a hundredfold between architectures.
    """

    def __init__(self, channels: int, width: int, kind: str, hidden: int | None, merge: int, dropout: float) -> None:
        super().__init__()
        self.merge, self.channels = merge, channels
        joined = channels * merge**2
        self.norm = nn.LayerNorm(joined)
        self.dropout = nn.Dropout(dropout)
        first = hidden or width
        self.first = nn.Sequential(nn.Linear(joined, first), nn.GELU()) if kind == "mlp" else nn.Identity()
        self.last = nn.Linear(first if kind == "mlp" else joined, width)

    def tokens(self, cells: int) -> int:
        """P, how many tokens so many cells become.

        Raises:
            CheckpointError: neighbours are to be merged, and the cells are no square grid that allows it.
        """
        return cells if self.merge == 1 else (self._side(cells) // self.merge) ** 2

    def _side(self, cells: int) -> int:
        """The side of the grid; one cell more is a class token."""
        side = math.isqrt(cells)
        if side**2 not in (cells, cells - 1) or side % self.merge:
            raise CheckpointError(
                f"merge = {self.merge}: the tower says {cells} cells, no square grid that can be merged so.",
                "Set [model.new] merge = 1, or another [model.image] size.",
            )
        return side

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = features.to(self.norm.weight.dtype)  # caches are in 16 bits
        out: torch.Tensor = self.last(self.first(self.dropout(self.norm(self._merged(features)))))
        return out

    def _merged(self, features: torch.Tensor) -> torch.Tensor:
        """[N, T, C] → [N, P, merge² · C], without the class token"""
        if self.merge == 1:
            return features
        images, cells, channels = features.shape
        side, merge = self._side(cells), self.merge
        grid = features[:, cells - side**2 :].reshape(images, side // merge, merge, side // merge, merge, channels)
        return grid.transpose(2, 3).reshape(images, (side // merge) ** 2, merge**2 * channels)


class VisionPrefixForConditionalGeneration(PreTrainedModel, GenerationMixin):
    config: VisionPrefixConfig
    config_class = VisionPrefixConfig
    base_model_prefix = "vision_prefix"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True

    def __init__(
        self,
        config: VisionPrefixConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: Any = None,
    ) -> None:
        """A model with random weights but for the halves that are given, which it takes over."""
        super().__init__(config)
        self.vision_tower: Any = build_tower(config.vision_config) if vision_tower is None else vision_tower
        if config.feature_size is None:
            config.feature_size = channels_of(self.vision_tower)
        self.language_model: Any = (
            AutoModelForCausalLM.from_config(config.text_config) if language_model is None else language_model
        )
        width = self.language_model.get_input_embeddings().embedding_dim
        self.projector = Projector(
            config.feature_size, width, config.projector, config.projector_size, config.merge, config.dropout
        )
        self.post_init()
        keep_statistics(self.vision_tower)

    @classmethod
    def join(
        cls, vision_tower: PreTrainedModel, language_model: Any, **settings: Any
    ) -> VisionPrefixForConditionalGeneration:
        """Joins two pretrained models, which it takes over, by a new projector.

        The projector's tokens begin at the scale of the language model's own embeddings, which it was trained to read.
        """
        config = VisionPrefixConfig(
            vision_config=vision_tower.config.to_dict(), text_config=language_model.config.to_dict(), **settings
        )
        model = cls(config, vision_tower, language_model)
        with torch.no_grad():
            embeddings = language_model.get_input_embeddings()
            words = embeddings(
                torch.arange(min(1000, embeddings.num_embeddings))
            )  # some models scale what they look up
            tokens = model.projector(torch.randn(1, 64 * config.merge**2, model.projector.channels))
            model.projector.last.weight.mul_(words.float().std() / tokens.std())
        model.generation_config = language_model.generation_config
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """For the projector; the halves initialise themselves."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True) -> VisionPrefixForConditionalGeneration:
        super().train(mode)
        keep_statistics(self.vision_tower)
        return self

    def get_encoder(self, modality: str | None = None) -> PreTrainedModel:
        return self.vision_tower

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [N, 3, height, width] → features [N, T, C]: what can be cached while the tower is frozen."""
        return as_cells(self.vision_tower(pixel_values).last_hidden_state)

    def embed(
        self,
        input_ids: torch.Tensor,
        features: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """input_ids [R, L] and features [N, T, C] → inputs_embeds [R, L, D], the image's tokens in their places.

        rows [R]: the image of each row of text; by default R = N, one each.
        """
        is_image = input_ids == self.config.image_token_id
        # the image's id may be beyond the vocabulary
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids.masked_fill(is_image, 0))
        tokens = self.projector(features).to(embeds.dtype)  # [N, P, D]
        tokens = tokens if rows is None else tokens[rows]
        if int(is_image.sum()) != tokens.shape[0] * tokens.shape[1]:
            raise CheckpointError(
                f"The text has {int(is_image.sum())} places for image tokens and the images have "
                f"{tokens.shape[0]} × {tokens.shape[1]}.",
                "Give each image as many image tokens as the projector makes of it.",
            )
        return embeds.masked_scatter(is_image[..., None], tokens)

    def read(
        self,
        input_ids: torch.Tensor,
        features: torch.Tensor,
        rows: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Teacher forcing without logits: the last hidden states [R, L, D], which `logits` takes."""
        embeds = self.embed(input_ids, features, rows)
        made = self.language_model.base_model(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False)
        hidden: torch.Tensor = made.last_hidden_state
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[M, D] → [M, V], with what some language models do to their logits (Cohere, Granite, Gemma 2)."""
        config = self.config.text_config
        logits: torch.Tensor = self.get_output_embeddings()(hidden)
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if scale := getattr(config, "logits_scaling", None):
            logits = logits / scale
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Loss and logits of texts with images in them.

        One of pixel_values [N, 3, height, width] and features [N, T, C]; input_ids, attention_mask and labels [R, L]
        (labels are shifted inside, -100 where nothing is asked); rows [R], the image of each text. Anything else goes
        to the language model.
        """
        embeds = self.embed(input_ids, self._features(pixel_values, features), rows)
        made: CausalLMOutputWithPast = self.language_model(
            inputs_embeds=embeds, attention_mask=attention_mask, labels=labels, **kwargs
        )
        return made

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        generation_config: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As in Hugging Face models, but only the new tokens come back.

        Prompts are given to the language model as embeddings, so that penalties for repetition count what was generated
        and not the prompt, and the tower and the projector run once an image and not once a beam.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise CheckpointError("vision_prefix got no text.", "Give input_ids with the image's tokens in it.")
            inputs_embeds = self.embed(input_ids, self._features(pixel_values, features))
        return self.language_model.generate(
            inputs_embeds=inputs_embeds, generation_config=generation_config or self.generation_config, **kwargs
        )

    def _features(self, pixel_values: torch.Tensor | None, features: torch.Tensor | None) -> torch.Tensor:
        if features is not None:
            return features
        if pixel_values is None:
            raise CheckpointError("vision_prefix got no image.", "Give pixel_values or features.")
        return self.encode_images(pixel_values)


AutoConfig.register(VisionPrefixConfig.model_type, VisionPrefixConfig, exist_ok=True)
AutoModelForImageTextToText.register(VisionPrefixConfig, VisionPrefixForConditionalGeneration, exist_ok=True)
