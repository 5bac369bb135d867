"""Vision transformer: an image as a sequence of patches, no convolution but the one that embeds them.

Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021:
figure 1, equations 1 to 4, table 1 (ViT-B). As published. Keys of the state_dict are those of torchvision; the older
ones of its published files (``mlp.linear_1``, ``mlp.linear_2``) load as well. Layer normalisation, GELU and the
products of attention are torch's; those with weights are pycv's.
"""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import GELU, Dropout, LayerNorm, Module, Parameter, Sequential, Tanh, init
from torch.nn.functional import scaled_dot_product_attention

from .. import functional, nn
from .registry import register


class SelfAttention(Module):
    """Multi-head attention of a sequence to itself (appendix A): (N, L, hidden_dim) to the same shape.

    One product gives the queries, keys and values of all heads: rows of ``in_proj_weight`` in this order.
    """

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = Parameter(torch.empty(3 * hidden_dim, hidden_dim))
        self.in_proj_bias = Parameter(torch.zeros(3 * hidden_dim))
        self.out_proj = nn.Linear(hidden_dim, hidden_dim)
        init.xavier_uniform_(self.in_proj_weight)
        init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        heads = projected.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # 3, N, heads, L, width
        query, key, value = heads.unbind()
        dropout = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def own_macs(self, x: Tensor) -> int:
        """Those of the input projection, which no layer within does."""
        return x.numel() * self.in_proj_weight.shape[0]


class EncoderBlock(Module):
    """Attention and a two-layer perceptron, each of the normalised input and added to it. Keeps the shape (N, L, D)."""

    def __init__(self, num_heads: int, hidden_dim: int, mlp_dim: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(hidden_dim, eps=1e-6)
        self.self_attention = SelfAttention(hidden_dim, num_heads, attention_dropout)
        self.dropout = Dropout(dropout)
        self.ln_2 = LayerNorm(hidden_dim, eps=1e-6)
        self.mlp = Sequential(
            nn.Linear(hidden_dim, mlp_dim), GELU(), Dropout(dropout), nn.Linear(mlp_dim, hidden_dim), Dropout(dropout)
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                init.xavier_uniform_(module.weight)
                init.normal_(module.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attention(self.ln_1(x)))
        return x + self.mlp(self.ln_2(x))


class Encoder(Module):
    """Adds the positions and runs the blocks: (N, seq_length, hidden_dim) to the same shape, normalised."""

    def __init__(
        self,
        seq_length: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.pos_embedding = Parameter(torch.empty(1, seq_length, hidden_dim).normal_(std=0.02))
        self.dropout = Dropout(dropout)
        layers: OrderedDict[str, Module] = OrderedDict()
        for index in range(num_layers):
            block = EncoderBlock(num_heads, hidden_dim, mlp_dim, dropout, attention_dropout)
            layers[f"encoder_layer_{index}"] = block
        self.layers = Sequential(layers)
        self.ln = LayerNorm(hidden_dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(self.layers(self.dropout(x + self.pos_embedding)))


class VisionTransformer(Module):
    """Embeds the patches, puts the class token before them, encodes, and classifies by what became of that token.

    Parameters
    ----------
    image_size, patch_size : sides of the square images and of the patches that they are cut into.
    num_layers, num_heads, hidden_dim, mlp_dim : of the encoder (table 1: layers, heads, D, MLP size).
    dropout : probability of a zero after the positions, in the perceptrons, and after attention and perceptrons.
    attention_dropout : the same for the weights of attention.
    num_classes : outputs of the last layer, which starts as zeros.
    representation_size : width of a hidden layer with tanh before the last, as in the paper's pre-training; None for
        none.

    Takes (N, 3, image_size, image_size), gives logits (N, num_classes).

    Raises
    ------
    ValueError
        If ``image_size`` is no multiple of ``patch_size``, ``hidden_dim`` none of ``num_heads``, or the images are of
        another size.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_classes: int = 1000,
        representation_size: int | None = None,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size={image_size}: expected a multiple of patch_size={patch_size}")
        if hidden_dim % num_heads:
            raise ValueError(f"hidden_dim={hidden_dim}: expected a multiple of num_heads={num_heads}")
        self.image_size = image_size
        self.conv_proj = nn.Conv2d(3, hidden_dim, kernel_size=patch_size, stride=patch_size)
        self.class_token = Parameter(torch.zeros(1, 1, hidden_dim))
        seq_length = (image_size // patch_size) ** 2 + 1
        self.encoder = Encoder(seq_length, num_layers, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout)
        heads: OrderedDict[str, Module] = OrderedDict()
        if representation_size is not None:
            heads["pre_logits"] = nn.Linear(hidden_dim, representation_size)
            heads["act"] = Tanh()
        heads["head"] = nn.Linear(representation_size or hidden_dim, num_classes)
        self.heads = Sequential(heads)
        _initialise(self)
        self.register_load_state_dict_pre_hook(_rename_old_keys)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"images of {tuple(x.shape[-2:])}: expected {(self.image_size, self.image_size)}")
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)  # N, L, D
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches], 1)
        return self.heads(self.encoder(tokens)[:, 0])


def _initialise(model: VisionTransformer) -> None:
    """LeCun's normal initialisation of embedding and hidden head, zeros in the last layer."""
    for module in (model.conv_proj, getattr(model.heads, "pre_logits", None)):
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            init.trunc_normal_(module.weight, std=sqrt(1 / module.weight[0].numel()))
            init.zeros_(module.bias)
    for parameter in model.heads[-1].parameters():
        init.zeros_(parameter)


def _rename_old_keys(model: Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in list(state_dict):
        new = key.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")
        if key.startswith(prefix) and new != key:
            state_dict[new] = state_dict.pop(key)


@register
def vit_b_16(**kwargs) -> VisionTransformer:
    """ViT-B/16: table 1; 86,567,656 parameters. Keyword arguments go to :class:`VisionTransformer`."""
    sizes = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
    return VisionTransformer(**{**sizes, **kwargs})
