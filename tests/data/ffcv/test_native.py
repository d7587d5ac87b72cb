"""What is packed is what the loader reads: odd files are mended or refused."""

import random

import numpy as np
import pytest
from PIL import Image

from helpers.image_makers import encoded, jpeg, pixels, write_tree
from semabench.data.ffcv import native
from semabench.data.ffcv.check import DamagedFileError, check
from semabench.data.ffcv.pack import PackEncoder, pack
from semabench.data.image import JPG, UnreadableImageError, decode


@pytest.fixture(params=["ffcv", "simplejpeg"], autouse=True)
def decoder(request, monkeypatch):
    """Both of the loader's decoders; FFCV's where it is installed."""
    if request.param == "simplejpeg":
        monkeypatch.setattr(native, "_decoder", lambda: None)
    elif native._decoder() is None:
        pytest.skip("FFCV is not installed")


ENCODE = PackEncoder(None, 1.0, 90, 0)


def warned_of() -> dict[str, bytes]:
    """JPEGs that Pillow reads, libjpeg with a warning."""
    plain = jpeg(96, 64, 3)
    scan = plain.index(b"\xff\xda") + 14
    cut = scan + (len(plain) - scan) // 3
    turned = bytes((b ^ 0x5A) if b not in (0, 255, 0xA5) else b for b in plain[cut : cut + 40])
    return {
        "extraneous": plain[:-2] + b"\x11\x22\x33\x44" * 8 + plain[-2:],
        "early_end": plain[: scan + (len(plain) - scan) // 2] + b"\xff\xd9",
        "bad_codes": plain[:cut] + turned + plain[cut + 40 :],
    }


@pytest.mark.parametrize("kind", warned_of())
def test_what_the_loader_refuses_is_encoded_anew(kind, tmp_path, capsys):
    data = warned_of()[kind]
    image = decode(data)
    assert native.decode_jpeg(data, *image.size) is None
    stored = ENCODE(0, data)
    assert stored.mended
    assert native.reads(stored.data, np.asarray(decode(stored.data)))
    assert np.abs(np.asarray(decode(stored.data)).astype(int) - np.asarray(image)).mean() < 12

    write_tree(tmp_path, "train", {"a": 2, "b": 2})
    (tmp_path / "train" / "a" / "odd.jpg").write_bytes(data)
    done = pack(tmp_path, tmp_path / "out", max_resolution=None, workers=1)
    told = " ".join(capsys.readouterr().err.split())
    assert "encoded 1 JPEGs anew" in told
    assert "a/odd.jpg" in told
    check(done.path, workers=1)


def test_an_ordinary_jpeg_is_copied():
    data = jpeg(96, 64, 3)
    assert ENCODE(0, data) == (JPG, 96, 64, data, False)


def test_check_decodes_as_training_does(tmp_path, monkeypatch):
    """A file from before packing asked the loader."""
    write_tree(tmp_path, "train", {"a": 2, "b": 2})
    (tmp_path / "train" / "a" / "odd.jpg").write_bytes(warned_of()["extraneous"])
    with monkeypatch.context() as before:
        before.setattr(native, "reads", lambda *_: True)
        done = pack(tmp_path, tmp_path / "out", max_resolution=None, workers=1)
    with pytest.raises(DamagedFileError, match="1 of 5 samples are damaged"):
        check(done.path, workers=1)


def originals() -> list[bytes]:
    image = Image.fromarray(pixels(48, 40, 5))
    kinds = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("TIFF", {}), ("WEBP", {})]
    return [encoded(image, kind, **options) for kind, options in kinds]


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Turn bytes, cut some out, put some in, or cut the end off."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        if not changed:
            break
        at = generator.randrange(len(changed))
        what = generator.randrange(4)
        if what == 0:
            changed[at] = generator.randrange(256)
        elif what == 1:
            del changed[at : at + generator.randint(1, 20)]
        elif what == 2:
            changed[at:at] = generator.randbytes(generator.randint(1, 20))
        else:
            del changed[max(at, 1) :]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_whatever_is_in_a_file_it_is_read_alike_or_refused(seed):
    """300 mutations of each seed: no other exception, and no JPEG that the loader refuses."""
    generator = random.Random(seed)
    kept = refused = 0
    for _ in range(300):
        data = mutated(generator.choice(originals()), generator)
        try:
            stored = ENCODE(0, data)
        except UnreadableImageError:
            refused += 1
            continue
        kept += 1
        if stored.mode == JPG:
            assert native.reads(stored.data, np.asarray(decode(stored.data)))
    assert kept > 50
    assert refused > 50
