"""Vision Mamba (Vim; Zhu et al., ICML 2024) as a timm model."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, lecun_normal_, to_2tuple, trunc_normal_
from timm.models import checkpoint_seq
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest
from semabench.models.bidirectional_mamba import BidirectionalMamba
from semabench.models.mixing import undecayed
from semabench.models.vim_positions import Grid, insert_middle, resample_positions, split_middle

POOLS = ("token", "avg", "")


class PatchEmbed(nn.Module):
    """Square patches to tokens; with a stride below the patch size they overlap."""

    def __init__(self, in_chans: int, dim: int, patch_size: int, stride: int) -> None:
        super().__init__()
        for option, value in (("patch_size", patch_size), ("stride", stride)):
            if value < 1:
                raise SemabenchError(f"{option} must be at least 1, not {value}.")
        self.patch_size, self.stride = patch_size, stride
        self.proj = nn.Conv2d(in_chans, dim, patch_size, stride=stride)

    def grid(self, height: int, width: int) -> Grid:
        """Return the rows and columns of patches that cover so many pixels."""
        rows, columns = (
            math.ceil(max(size - self.patch_size, 0) / self.stride) + 1 for size in (height, width)
        )
        return rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, *grid(H, W)); short edges are padded with zeros."""
        bottom, right = (
            (n - 1) * self.stride + self.patch_size - size
            for n, size in zip(self.grid(*x.shape[2:]), x.shape[2:], strict=True)
        )
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        y: Tensor = self.proj(x)
        return y


class Layer(nn.Module):
    """x + DropPath(mixer(RMSNorm(x))): there is no MLP.

    The official code defers each addition to the next layer, to fuse it with that one's norm. Its
    list of drop rates, shifted by one for the same reason, is here the plain linear schedule: the
    first mixer's output is never dropped, the last one's at the full rate.
    """

    def __init__(self, dim: int, drop_path: float, **mixer: Any) -> None:
        super().__init__()
        self.mixer = BidirectionalMamba(dim, **mixer)
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C). Under autocast, x stays float32: it holds the residual stream."""
        y: Tensor = x + self.drop_path(self.mixer(self.norm(x)))
        return y


class Vim(nn.Module):
    """Pictures (B, in_chans, H, W) -> logits (B, num_classes), at any size.

    Patches in reading order with a class token in their middle, plus learned positions; layers of
    bidirectional Mamba; the class token is classified. Attributes bear the official code's names.

    Args:
        in_chans: channels of the pictures.
        num_classes: 0 leaves the head out.
        global_pool: "token" (published), "avg" of the patches, or "" for all tokens.
        img_size: pixels that the table of positions is for; at others it is interpolated.
        patch_size: pixels per side of a patch.
        stride: pixels between patches; the patch size if None.
        embed_dim: channels.
        depth: layers.
        d_state: numbers in the state of a channel.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last layer, growing linearly from 0.
        backend: of ``ops.selective_scan``.

    Raises:
        SemabenchError: unknown ``global_pool`` or backend.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        stride: int | None = None,
        embed_dim: int = 192,
        depth: int = 24,
        d_state: int = 16,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = embed_dim
        self.grad_checkpointing = False
        self.patch_embed = PatchEmbed(
            in_chans, embed_dim, patch_size, patch_size if stride is None else stride
        )
        self.grid_size = self.patch_embed.grid(*to_2tuple(img_size))
        patches = self.grid_size[0] * self.grid_size[1]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, embed_dim))
        self.layers = nn.Sequential(
            *(
                Layer(
                    embed_dim,
                    drop_path_rate * i / max(depth - 1, 1),
                    d_state=d_state,
                    backend=backend,
                )
                for i in range(depth)
            )
        )
        self.norm_f = nn.RMSNorm(embed_dim, eps=1e-5)
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the official code does what torch and the mixers do not.

        The projections onto the residual stream are torch's, divided by sqrt(depth) (GPT-2).
        """
        lecun_normal_(self.patch_embed.proj.weight)
        assert self.patch_embed.proj.bias is not None
        nn.init.zeros_(self.patch_embed.proj.bias)
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.cls_token, std=0.02)
        with torch.no_grad():
            for layer in self.layers:
                assert isinstance(layer, Layer)
                layer.mixer.out_proj.weight /= math.sqrt(len(self.layers))

    def no_weight_decay(self) -> set[str]:
        """Return parameters to spare beyond norms and biases."""
        return {"cls_token", "pos_embed"} | undecayed(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that sort parameters into layers, for layer-wise rates."""
        return {
            "stem": r"^(?:cls_token|pos_embed|patch_embed)",
            "blocks": [(r"^layers\.(\d+)", None), (r"^norm_f", (99999,))],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the layers' activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier in place; 0 classes leave it out."""
        if global_pool is not None:
            if global_pool not in POOLS:
                hint = nearest(str(global_pool), POOLS)
                raise SemabenchError(f"Vim has no global_pool '{global_pool}'.{hint}")
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head: nn.Module = nn.Identity()
        if num_classes > 0:
            self.head = nn.Linear(self.num_features, num_classes)
            trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def embed(self, x: Tensor) -> Tensor:
        """Pictures -> tokens with their positions, (B, patches + 1, C)."""
        grid = self.patch_embed(x)
        size = (grid.shape[2], grid.shape[3])
        token = self.cls_token.expand(len(x), -1, -1)
        tokens = insert_middle(grid.flatten(2).transpose(1, 2), token)
        return tokens + resample_positions(self.pos_embed, self.grid_size, size)

    def forward_features(self, x: Tensor) -> Tensor:
        """Pictures -> normalised tokens, (B, patches + 1, C), the class token in their middle."""
        x = self.embed(x)
        if self.grad_checkpointing and self.training:
            x = checkpoint_seq(self.layers, x)
        else:
            x = self.layers(x)
        y: Tensor = self.norm_f(x)
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens -> logits, or the pooled features before the classifier."""
        if self.global_pool:
            patches, token = split_middle(x)
            x = token[:, 0] if self.global_pool == "token" else patches.mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures -> logits."""
        return self.forward_head(self.forward_features(x))
