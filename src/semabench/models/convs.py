"""MILA's convolutional stem and downsampling (Han et al., NeurIPS 2024), NCHW inside."""

from __future__ import annotations

from torch import Tensor, nn


class ConvLayer(nn.Module):
    """Convolution, optional BatchNorm, optional ReLU; padded so that stride 1 keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        norm: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
        )
        self.norm = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H/stride), ceil(W/stride))."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class Stem(nn.Module):
    """Pictures to tokens, (B, in_chans, H, W) -> (B, ceil(H/4), ceil(W/4), dim)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.conv1 = ConvLayer(in_chans, half, 3, stride=2, bias=False)
        self.conv2 = nn.Sequential(
            ConvLayer(half, half, 3, bias=False),
            ConvLayer(half, half, 3, bias=False, act=False),
        )
        self.conv3 = nn.Sequential(
            ConvLayer(half, 4 * dim, 3, stride=2, bias=False),
            ConvLayer(4 * dim, dim, 1, bias=False, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid of tokens."""
        x = self.conv1(x)
        x = self.conv3(x + self.conv2(x))
        # In memory as it reads, whatever the pictures' format: all convolutions of the stages then
        # run channels-last, and no linear layer copies its input. Free if it is so already.
        return x.permute(0, 2, 3, 1).contiguous()


class Downsample(nn.Module):
    """Half the grid, other channels: (B, H, W, dim) -> (B, ceil(H/2), ceil(W/2), out_dim)."""

    def __init__(self, dim: int, out_dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(out_dim * ratio)
        self.conv = nn.Sequential(
            ConvLayer(dim, hidden, 1, norm=False),
            ConvLayer(hidden, hidden, 3, stride=2, groups=hidden, norm=False),
            ConvLayer(hidden, out_dim, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller grid."""
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
