"""Vision Mamba (Vim; Zhu et al., ICML 2024) as a timm model.

The class token and table of positions, the mixer (one Mamba that reads a sequence both ways), the
model, its named variants and what its official checkpoints need: their key names are ours, only the
table of positions may differ. Widths and drop-path rates are those of the official code and scripts
(Vim@dd0358a), 224 px.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import lecun_normal_, resample_abs_pos_embed, to_2tuple, trunc_normal_
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest
from semabench.mixers.ssm import Scan, decay_logarithm, step_bias, step_weight
from semabench.models.drop_path import DropPath, run_blocks
from semabench.models.staged import register_variants, undecayed

Grid = tuple[int, int]


def insert_middle(patches: Tensor, token: Tensor) -> Tensor:
    """Put a token, (B, 1, C), after half of the patches: (B, M, C) -> (B, M + 1, C)."""
    at = patches.shape[1] // 2
    return torch.cat((patches[:, :at], token, patches[:, at:]), dim=1)


def split_middle(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Take the middle token out: (B, M + 1, C) -> patches (B, M, C) and token (B, 1, C)."""
    at = (tokens.shape[1] - 1) // 2
    return torch.cat((tokens[:, :at], tokens[:, at + 1 :]), dim=1), tokens[:, at : at + 1]


def resample_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Interpolate a table of positions, (1, h·w + 1, C), from one grid of patches to another.

    Bicubic, antialiased where the grid shrinks, as timm does it for ViT. The class token's row is
    the middle one and is not interpolated: it moves to the middle of the new table. (The official
    fine-tuning code takes row 0 for it, and so shifts half of the positions.)
    """
    if new == old:
        return table
    patches, token = split_middle(table)
    resampled: Tensor = resample_abs_pos_embed(
        patches, new_size=list(new), old_size=list(old), num_prefix_tokens=0
    )
    return insert_middle(resampled, token)


class BidirectionalMamba(nn.Module):
    """(B, L, C) -> (B, L, C): Vim's "bimamba v2" (Zhu et al., ICML 2024, algorithm 1).

        x, z = Linear(input);  u = SiLU(conv(x)), conv causal in the direction of reading
        y = scan(u) forwards and backwards, each with its own conv, Δ, B, C, A and D
        out = Linear((y_forward + y_backward) / 2 · SiLU(z))

    Both directions share the projections in and out and the gate z. Attributes bear the official
    code's names; ``_b`` marks the backward ones. Nothing is flipped: the backward convolution has
    its padding and its kernel turned round, and the scan runs from the end.

    Args:
        dim: channels C; the inner ones are ``expand`` times as many.
        d_state: N, numbers in the state of an inner channel.
        d_conv: taps of the causal convolution.
        expand: inner over outer channels.
        backend: of ``ops.selective_scan``.
    """

    undecayed = ("A_log", "A_b_log", "D", "D_b")

    def __init__(
        self,
        dim: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.scan = Scan((False, True), backend)
        inner, rank = expand * dim, math.ceil(dim / 16)
        self.d_state, self.dt_rank = d_state, rank
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.conv1d_b = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.x_proj_b = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.dt_proj_b = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(decay_logarithm(inner, d_state))
        self.A_b_log = nn.Parameter(decay_logarithm(inner, d_state))
        self.D = nn.Parameter(torch.ones(inner))
        self.D_b = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_steps()

    def reset_steps(self) -> None:
        """Initialise the projections to Δ as the official code leaves them.

        Its forward one gets Mamba's initialisation. Its backward one is an ordinary linear layer
        whose bias is set to zero, so that backward steps start at softplus(0) = 0.69.
        """
        with torch.no_grad():
            self.dt_proj.weight.copy_(step_weight(*self.dt_proj.weight.shape))
            self.dt_proj.bias.copy_(step_bias(len(self.dt_proj.bias)))
            self.dt_proj_b.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence, (B, L, C) -> (B, L, C)."""
        x, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)  # (B, D, L)
        u = torch.stack((self.convolve(x), self.convolve_backward(x)), dim=1)  # (B, 2, D, L)
        projected = torch.stack((self.x_proj.weight, self.x_proj_b.weight)) @ u
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=2)
        delta = torch.stack((self.dt_proj.weight, self.dt_proj_b.weight)) @ dt
        y = self.scan(
            u.flatten(1, 2),
            delta.flatten(1, 2),
            torch.cat((self.A_log, self.A_b_log)),
            B,
            C,
            torch.cat((self.D, self.D_b)),
            torch.cat((self.dt_proj.bias, self.dt_proj_b.bias)),
        )
        y_forward, y_backward = y.view_as(u).unbind(1)
        mixed = (y_forward + y_backward) * (F.silu(z) / 2)
        return self.out_proj(mixed.transpose(1, 2))

    def convolve(self, x: Tensor) -> Tensor:
        """SiLU(causal convolution) of (B, D, L): a token sees itself and those before it."""
        return F.silu(self.conv1d(F.pad(x, (self.conv1d.kernel_size[0] - 1, 0))))

    def convolve_backward(self, x: Tensor) -> Tensor:
        """Return the same of the sequence read from its end."""
        conv = self.conv1d_b
        x = F.pad(x, (0, conv.kernel_size[0] - 1))
        return F.silu(F.conv1d(x, conv.weight.flip(-1), conv.bias, groups=conv.groups))


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
        return self.proj(x)


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
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, drops: Sequence[Tensor | None] = (None,)) -> Tensor:
        """(B, L, C) -> (B, L, C). Under autocast, x stays float32: it holds the residual stream."""
        return x + self.drop_path(self.mixer(self.norm(x)), drops[0])


class Vim(nn.Module):
    """Images (B, in_chans, H, W) -> logits (B, num_classes), at any size.

    Patches in reading order with a class token in their middle, plus learned positions; layers of
    bidirectional Mamba; the class token is classified. Attributes bear the official code's names.

    Args:
        in_chans: channels of the images.
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

    def compiled_parts(self) -> list[nn.Module]:
        """Return what is compiled by itself; all layers are one program."""
        return list(self.layers)

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
        """Images -> tokens with their positions, (B, patches + 1, C)."""
        grid = self.patch_embed(x)
        size = (grid.shape[2], grid.shape[3])
        token = self.cls_token.expand(len(x), -1, -1)
        tokens = insert_middle(grid.flatten(2).transpose(1, 2), token)
        return tokens + resample_positions(self.pos_embed, self.grid_size, size)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images -> normalised tokens, (B, patches + 1, C), the class token in their middle."""
        x = self.embed(x)
        return self.norm_f(run_blocks(self.layers, x, self.grad_checkpointing and self.training))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens -> logits, or the pooled features before the classifier."""
        if self.global_pool:
            patches, token = split_middle(x)
            x = token[:, 0] if self.global_pool == "token" else patches.mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images -> logits."""
        return self.forward_head(self.forward_features(x))


VARIANTS: dict[str, dict[str, Any]] = {
    # For demos and tests, under 1 M parameters.
    "vim_nano": {"patch_size": 8, "embed_dim": 96, "depth": 4, "d_state": 4},
    # Published; "plus" has patches every 8 px, to fine-tune at a finer grain (top-1 78.3 and 81.6).
    "vim_tiny": {"embed_dim": 192},
    "vim_small": {"embed_dim": 384, "drop_path_rate": 0.05},
    "vim_base": {"embed_dim": 768, "drop_path_rate": 0.1},
    "vim_tiny_plus": {"embed_dim": 192, "stride": 8},
    "vim_small_plus": {"embed_dim": 384, "stride": 8},
}
_CFG: dict[str, Any] = {"first_conv": "patch_embed.proj", "classifier": "head", "pool_size": None}
register_variants(Vim, VARIANTS, official="Vim", **_CFG)


_TRAINED_AT = 224  # pixels, all that was published


def fit_positions(state_dict: Mapping[str, Tensor], model: Vim) -> dict[str, Tensor]:
    """Interpolate the table of positions to the model's own grid of patches.

    So weights of any resolution or stride fit: those of 224 px at 512, those of stride 16 in the
    fine-tuning form with stride 8. The table's own grid is taken to be square; one that is not is
    left alone, for the loader to refuse by its shape.

    Raises:
        SemabenchError: a table as the published models of half the stride have it, for a model of
            the full one: all other weights would fit, and give other numbers.
    """
    fitted = dict(state_dict)
    table = fitted.get("pos_embed")
    if table is None or table.ndim != 3 or table.shape == model.pos_embed.shape:
        return fitted
    side = math.isqrt(table.shape[1] - 1)
    patch, stride = model.patch_embed.patch_size, model.patch_embed.stride
    if stride == patch and side == (_TRAINED_AT - patch) // (patch // 2) + 1:
        raise SemabenchError(
            f"the weights have {side} x {side} positions, as Vim of stride {patch // 2} at "
            f"{_TRAINED_AT} px has, and this model's stride is {patch}: take vim_tiny_plus or "
            f"vim_small_plus, or, if they are of stride {patch}, build it for {side * patch} px."
        )
    if side * side == table.shape[1] - 1:
        fitted["pos_embed"] = resample_positions(table, (side, side), model.grid_size)
    return fitted
