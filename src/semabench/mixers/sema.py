"""SEMA: window attention plus the mean of all values."""

from torch import Tensor

from semabench.mixers.base import register_mixer
from semabench.mixers.window import WindowedMixer
from semabench.ops import grid_mean


@register_mixer("sema")
class SEMA(WindowedMixer):
    """A_w(Q, K, V) + 1·(1/n) Σ_j v_j  (VideoSEMA, arXiv 2607.14711, eq. 2, 3, 9).

    The softmax A_w sees a window, whose size does not grow with the image, so it cannot disperse;
    the plain mean stands for full softmax attention, which tends to it on large grids. The mean is
    neither gated nor weighted. Options and their defaults: ``WindowedMixer``.

    The authors' curve against resolution is of video (Kinetics-400, top-1 at 224, 512, 1024 px):
    VideoSEMA 82.4, 75.3, 54.6; VideoMamba 80.8, 74.4, 40.8.
    """

    adds_mean = True

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """SEMA(Q, K, V) = A_w(Q, K, V) + mean(V), (B, H, W, heads, d)."""
        return self.window_attention(q, k, v) + grid_mean(v)
