"""How much of a device's arithmetic a model uses: MFU, after PaLM's appendix B (2204.02311)."""

from __future__ import annotations

#: Dense TFLOP/s of 16-bit matrix products with 32-bit sums, by a part of torch's device name, from
#: the makers' data sheets (figures "with sparsity" there are twice these). The first match counts.
PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    ("B200", 2250.0),  # NVIDIA DGX B200: 36 PFLOP/s with sparsity at FP16/BF16 for 8, halved
    ("H200 NVL", 835.5),  # NVIDIA H200 data sheet
    ("H200", 989.5),  # the same, SXM
    ("H100 PCIe", 756.5),  # NVIDIA H100 data sheet
    ("H100 NVL", 835.5),
    ("H100", 989.5),  # SXM5
    ("A100", 312.0),  # NVIDIA A100 data sheet
    ("A40", 149.7),
    ("A10G", 70.0),  # AWS's variant; Amazon EC2 G5
    ("A10", 125.0),
    ("L40S", 362.0),  # NVIDIA L40S data sheet
    ("L40", 181.0),
    ("L4", 121.0),  # NVIDIA L4 data sheet: 242 with sparsity
)
_SIXTEEN_BITS = ("bf16-mixed", "16-mixed")


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return FLOP/s of a device at a precision of Lightning's; None where it is not known."""
    if precision not in _SIXTEEN_BITS:
        return None
    words = device_name.replace("-", " ")
    for name, tera in PEAK_TFLOPS:
        if name in words:
            return tera * 1e12
    return None


def flops_per_image(gmacs: float, passes: float) -> float:
    """Return the FLOPs of one picture in training: two for each multiply-add of each pass.

    Args:
        gmacs: of one forward pass, as ``count_gmacs`` counts it.
        passes: 3 with the backward pass, which costs twice the forward one; a teacher adds 1.
    """
    return 2e9 * gmacs * passes
