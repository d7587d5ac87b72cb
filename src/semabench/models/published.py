"""What was published of the models here: ImageNet-1k top-1 at 224 px, size, and recipe.

Facts to compare with, never mixed with what was measured here. The numbers are as good as their
recipes differ: MILA trains with MESA and averaged weights, Vim and VMamba with neither MESA nor
reported averaged weights, timm's peers by recipes of their own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One published result.

    Attributes:
        params: millions.
        gmacs: multiply-adds of one 224 px picture, in 10⁹; papers call them GFLOPs.
        top1: per cent, single crop at 224 px.
        recipe: name in ``conf/recipe`` of how it was trained; None: not written down here.
        source: where it was published.
    """

    params: float
    gmacs: float
    top1: float
    recipe: str | None
    source: str


_MILA = "Han et al. 2024, arXiv 2405.16605, official repository"
_VMAMBA = "Liu et al. 2024, arXiv 2401.10166, official repository"
_VIM = "Zhu et al. 2024, arXiv 2401.09417, official repository"
_DEIT = "Touvron et al. 2021, arXiv 2012.12877"
_SWIN = "Liu et al. 2021, arXiv 2103.14030"
_CONVNEXT = "Liu et al. 2022, arXiv 2201.03545"
_MAMBAOUT = "Yu and Wang 2024, arXiv 2405.07992"

PUBLISHED = {
    "mila_tiny": Published(24.39, 4.2, 83.5, "mila_tiny", _MILA),
    "mila_small": Published(43.02, 7.3, 84.4, "mila_small", _MILA),
    "mila_base": Published(95.98, 16.2, 85.3, "mila_base", _MILA),
    "vmamba_tiny_s1l8": Published(30.25, 4.9, 82.6, "vmamba", _VMAMBA),
    "vmamba_tiny_s2l5": Published(30.71, 4.9, 82.5, "vmamba", _VMAMBA),
    "vmamba_small_s2l15": Published(50.15, 8.7, 83.6, "vmamba", _VMAMBA),
    "vmamba_base_s2l15": Published(88.56, 15.4, 83.9, "vmamba", _VMAMBA),
    "vim_tiny": Published(7.15, 1.5, 76.1, "vim_tiny", _VIM),
    "vim_small": Published(25.80, 5.1, 80.5, "vim_small", _VIM),
    "vim_base": Published(97.60, 17.5, 81.9, None, _VIM),
    "deit_small_patch16_224": Published(22.05, 4.6, 79.8, None, _DEIT),
    "swin_tiny_patch4_window7_224": Published(28.29, 4.5, 81.2, None, _SWIN),
    "swin_small_patch4_window7_224": Published(49.61, 8.7, 83.2, None, _SWIN),
    "swin_base_patch4_window7_224": Published(87.77, 15.4, 83.5, None, _SWIN),
    "convnext_tiny": Published(28.6, 4.5, 82.1, None, _CONVNEXT),
    "convnext_small": Published(50.2, 8.7, 83.1, None, _CONVNEXT),
    "convnext_base": Published(88.6, 15.4, 83.8, None, _CONVNEXT),
    "mambaout_tiny": Published(26.5, 4.5, 82.7, None, _MAMBAOUT),
    "mambaout_small": Published(48.5, 9.0, 84.1, None, _MAMBAOUT),
    "mambaout_base": Published(84.8, 15.8, 84.2, None, _MAMBAOUT),
}
