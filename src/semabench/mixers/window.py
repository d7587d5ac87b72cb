"""Window attention alone: SEMA without its mean."""

from semabench.mixers.registry import register_mixer
from semabench.mixers.windowed import WindowedMixer


@register_mixer("window")
class Window(WindowedMixer):
    """A_w(Q, K, V): softmax inside disjoint windows (Swin, Liu et al., ICCV 2021).

    Without Swin's relative position bias; ``shift=True`` gives its shifted windows. Equal to
    ``softmax`` once the window covers the grid.
    """

    adds_mean = False
