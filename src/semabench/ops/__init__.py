"""Numerical kernels: one op a file, a plain reference first, then faster backends."""

from semabench.ops.depthwise_conv import depthwise_conv, depthwise_conv_backend
from semabench.ops.depthwise_down import depthwise_down
from semabench.ops.linear_attention import linear_attention, linear_attention_backend, rotary
from semabench.ops.selective_scan import selective_scan, selective_scan_backend
from semabench.ops.window_mean import (
    grid_mean,
    window_mean,
    window_mean_backend,
    window_mean_fused,
    window_mean_fused_backend,
)

__all__ = [
    "depthwise_conv",
    "depthwise_conv_backend",
    "depthwise_down",
    "grid_mean",
    "linear_attention",
    "linear_attention_backend",
    "rotary",
    "selective_scan",
    "selective_scan_backend",
    "window_mean",
    "window_mean_backend",
    "window_mean_fused",
    "window_mean_fused_backend",
]
