"""Small data sets for tests: plain ones, odd ones, and a miniature ILSVRC2012 as downloaded."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def pixels(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth random RGB (height, width, 3), so that JPEG keeps it recognisable."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(width: int = 40, height: int = 30, seed: int = 0, **options) -> bytes:
    return encoded(Image.fromarray(pixels(width, height, seed)), "JPEG", **options)


def odd_images() -> dict[str, bytes]:
    """Every kind that real data sets are known to hold, by file name."""
    rgb = Image.fromarray(pixels(61, 47, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray((np.arange(35 * 33, dtype=np.uint16) * 50).reshape(33, 35))
    alpha = rgb.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    return {
        "adobe_rgb.jpg": encoded(rgb, "JPEG", keep_rgb=True),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "deep.png": encoded(deep, "PNG"),
        "exif.JPG": encoded(rgb, "JPEG", exif=exif),
        "full_chroma.jpeg": encoded(rgb, "JPEG", subsampling="4:4:4"),
        "grey.jpg": encoded(rgb.convert("L"), "JPEG"),
        "half_chroma.jpg": encoded(rgb, "JPEG", subsampling="4:2:2"),
        "palette.png": encoded(rgb.convert("P"), "PNG", transparency=3),
        "png_named.JPEG": encoded(rgb, "PNG"),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "restart.jpg": encoded(rgb, "JPEG", restart_marker_blocks=2),
        "alpha.webp": encoded(alpha, "WEBP", lossless=True),
        "thin.png": encoded(Image.fromarray(pixels(1, 700, 2)), "PNG"),
        "tiff.TIFF": encoded(rgb, "TIFF"),
        "tiny.png": encoded(Image.fromarray(pixels(1, 1, 3)), "PNG"),
        "wide.jpg": jpeg(900, 600, 4),
    }


def write_tree(root: Path, split: str, counts: dict[str, int], **size) -> Path:
    """Write ``counts[class]`` JPEGs a class below ``root/split``; return ``root``."""
    for label, (name, count) in enumerate(counts.items()):
        directory = root / split / name
        directory.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (directory / f"{name}_{index}.JPEG").write_bytes(
                jpeg(seed=1000 * label + index, **size)
            )
    return root


def write_odd_tree(root: Path, split: str = "train") -> Path:
    (root / split / "odd").mkdir(parents=True)
    for name, data in odd_images().items():
        (root / split / "odd" / name).write_bytes(data)
    return root


WNIDS = ["n01440764", "n01443537", "n01484850"]
GROUPS = 2  # synsets with children, which are not classes
_IDS = {"n01484850": 1, "n01440764": 2, "n01443537": 3}  # the devkit's order is not the sorted one


def write_ilsvrc(tars: Path, tree: Path, per_class: int = 3) -> None:
    """Write the same miniature ImageNet as the official archives and as an unpacked tree."""
    tars.mkdir()
    with tarfile.open(tars / "ILSVRC2012_img_train.tar", "w") as outer:
        for label, wnid in enumerate(WNIDS):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for index in reversed(range(per_class)):
                    data = jpeg(seed=10 * label + index)
                    _place(tree / "train" / wnid / f"{wnid}_{index}.JPEG", data)
                    _add(tar, f"{wnid}_{index}.JPEG", data)
            _add(outer, f"{wnid}.tar", inner.getvalue())
    truth = []
    with tarfile.open(tars / "ILSVRC2012_img_val.tar", "w") as val:
        for number in range(1, 2 * len(WNIDS) + 1):
            wnid = WNIDS[number % len(WNIDS)]
            name, data = f"ILSVRC2012_val_{number:08d}.JPEG", jpeg(36, 50, seed=100 + number)
            truth.append(_IDS[wnid])
            _place(tree / "val" / wnid / name, data)
            _add(val, name, data)
    write_devkit(tars, truth)


def write_devkit(tars: Path, truth: list[int]) -> None:
    """Write the development kit with meta.mat in its official structure."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"]
    fields += ["wordnet_height", "num_train_images"]
    rows = [(_IDS[w], w, f"words of {w}", "gloss", 0, [], 0, 3) for w in sorted(_IDS, key=_IDS.get)]
    for index in range(GROUPS):
        number = len(rows) + 1
        rows.append((number, f"n0000000{index}", "group", "gloss", 2, [1, 2], 1, 0))
    synsets = np.zeros((len(rows), 1), dtype=[(name, object) for name in fields])
    for row, values in zip(synsets[:, 0], rows, strict=True):
        for name, value in zip(fields, values, strict=True):
            row[name] = np.array(value, dtype=float) if isinstance(value, list) else value
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    with tarfile.open(tars / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as kit:
        base = "ILSVRC2012_devkit_t12/data"
        _add(kit, f"{base}/meta.mat", meta.getvalue())
        lines = "".join(f"{number}\n" for number in truth)
        _add(kit, f"{base}/ILSVRC2012_validation_ground_truth.txt", lines.encode())


def _place(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
