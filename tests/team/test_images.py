"""Images that others send: what each format can hold is shown right or refused, and nothing huge is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from team import images
from team.images import ImageError, extension_of, open_image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(data: bytes, bits: tuple[int, ...], photometric: int = 1, sample: int = 1, extra: int | None = None) -> bytes:
    """A TIFF of 2 x 2 pixels, little-endian, uncompressed, of a layout that Pillow reads and doesn't write."""
    values = {256: (2,), 257: (2,), 258: bits, 259: (1,), 262: (photometric,), 277: (len(bits),), 278: (2,)}
    values |= {279: (len(data),), 339: (sample,) * len(bits)} | ({338: (extra,)} if extra is not None else {})
    shorts = {tag: struct.pack(f"<{len(value)}H", *value) for tag, value in values.items()}
    place = 8 + 2 + 12 * (len(shorts) + 1) + 4  # behind the directory: values that don't fit into it, then the pixels
    directory, behind = {}, b""
    for tag, value in shorts.items():
        directory[tag] = struct.pack("<HHI", tag, 3, len(value) // 2) + value.ljust(4, b"\0")
        if len(value) > 4:
            directory[tag] = struct.pack("<HHII", tag, 3, len(value) // 2, place + len(behind))
            behind += value
    directory[273] = struct.pack("<HHII", 273, 4, 1, place + len(behind))
    listed = b"".join(directory[tag] for tag in sorted(directory))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(directory)) + listed + b"\0\0\0\0" + behind + data


def png(bits: int, colour: int, row: bytes) -> bytes:
    """A PNG of 2 x 2 pixels, both rows the same."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 2, bits, colour, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


GREY = Image.new("L", (2, 2), 0x80)
RGB = Image.new("RGB", (2, 2), (0x80, 0x80, 0x80))
RIGHT = {
    "BMP L": saved(GREY, "BMP"),
    "BMP RGB": saved(RGB, "BMP"),
    "JPEG L": saved(GREY, "JPEG"),
    "JPEG RGB": saved(RGB, "JPEG"),
    "JPEG CMYK": saved(Image.new("CMYK", (2, 2), (0, 0, 0, 0x7F)), "JPEG", quality=100),
    "JPEG with a second picture": saved(RGB, "MPO", save_all=True, append_images=[RGB]),
    "PNG L": saved(GREY, "PNG"),
    "PNG LA": saved(GREY.convert("LA"), "PNG"),
    "PNG P": saved(RGB.quantize(4), "PNG"),
    "PNG RGB": saved(RGB, "PNG"),
    "PNG RGBA": saved(RGB.convert("RGBA"), "PNG"),
    "PNG 16 bits": png(16, 0, b"\x80\x00" * 2),
    "PNG RGB 16 bits": png(16, 2, b"\x80\x00" * 6),
    "PNG LA 16 bits": png(16, 4, b"\x80\x00\xff\xff" * 2),
    "PNG RGBA 16 bits": png(16, 6, (b"\x80\x00" * 3 + b"\xff\xff") * 2),
    "TIFF L": saved(GREY, "TIFF"),
    "TIFF LA": saved(GREY.convert("LA"), "TIFF"),
    "TIFF P": saved(RGB.quantize(4), "TIFF"),
    "TIFF PA": saved(RGB.quantize(4).convert("PA"), "TIFF"),
    "TIFF RGBA": saved(RGB.convert("RGBA"), "TIFF"),
    "TIFF CMYK": saved(Image.new("CMYK", (2, 2), (0, 0, 0, 0x7F)), "TIFF"),
    "TIFF YCbCr": saved(RGB.convert("YCbCr"), "TIFF"),
    "TIFF LAB": saved(Image.new("LAB", (2, 2), (0x89, 0x80, 0x80)), "TIFF"),
    "TIFF I;16": saved(Image.fromarray(np.full((2, 2), 0x8000, np.uint16)), "TIFF"),
    "TIFF I;16B": saved(Image.frombytes("I;16B", (2, 2), b"\x80\x00" * 4), "TIFF"),
    "TIFF 12 bits": tiff(bytes.fromhex("800800") * 2, (12,)),
    "TIFF 16 bits, white is 0": tiff(b"\xff\x7f" * 4, (16,), photometric=0),
    "TIFF 8 bits, white is 0": tiff(b"\x7f" * 4, (8,), photometric=0),
    "TIFF RGB 16 bits": tiff(b"\x00\x80" * 12, (16, 16, 16), photometric=2),
    "TIFF La": tiff(b"\x80\xff" * 4, (8, 8), extra=1),
    "TIFF RGBa": tiff(b"\x80\x80\x80\xff" * 4, (8, 8, 8, 8), photometric=2, extra=1),
    "WEBP RGB": saved(RGB, "WEBP", lossless=True),
    "WEBP RGBA": saved(RGB.convert("RGBA"), "WEBP", lossless=True),
}
REFUSED = {
    "TIFF I": saved(Image.new("I", (2, 2), 0x8000), "TIFF"),
    "TIFF F": saved(Image.new("F", (2, 2), 0.5), "TIFF"),
    "TIFF F, white is 0": tiff(struct.pack("<4f", *[0.5] * 4), (32,), photometric=0, sample=3),
    "TIFF 8 bits signed": tiff(b"\x80" * 4, (8,), sample=2),
    "TIFF 16 bits signed": tiff(b"\x00\x80" * 4, (16,), sample=2),
}


@pytest.mark.parametrize("content", RIGHT.values(), ids=RIGHT.keys())
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_open_image_half_grey_is_half_grey_in_every_mode(content: bytes, mode: str) -> None:
    pixels = np.asarray(open_image(content).convert(mode)).astype(int)
    assert np.abs(pixels - 0x80).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_open_image_of_one_bit_is_black_and_white(mode: str) -> None:
    picture = Image.fromarray(np.array([[True, False]] * 2))
    for kind in ("BMP", "PNG", "TIFF"):
        assert np.unique(open_image(saved(picture, kind)).convert(mode)).tolist() == [0, 255]


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED.keys())
def test_open_image_without_black_and_white_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError, match=r"^has 32-bit, signed or float pixels.* save it with 8 or 16 bits"):
        open_image(content)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "ICO", "PDF", "PPM", "TGA"])
def test_open_image_in_another_format_is_refused_without_an_address(kind: str) -> None:
    for read in (open_image, extension_of):
        with pytest.raises(ImageError, match=r"^is damaged or not an image in one of the formats BMP") as error:
            read(saved(RGB, kind))
        assert "0x" not in str(error.value)


def test_open_image_stands_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert open_image(saved(Image.new("L", (4, 2)), "JPEG", exif=exif)).size == (2, 4)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [None, 100, 2**40], ids=["none", "small", "large"])
def test_open_image_of_too_many_pixels_is_refused_before_decoding(
    monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    huge = bytearray(saved(Image.new("1", (8, 8)), "PNG"))
    huge[16:24] = struct.pack(">II", 9460, 9460)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(images, "PIXELS", 9460 * 9460 - 1)
    for read in (open_image, extension_of):
        with pytest.raises(ImageError, match="pixels"):
            read(bytes(huge))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_open_image_with_broken_tags_is_refused() -> None:
    """Pillow lets other errors than its own through where a tag of a TIFF has another type than its format says."""
    content = saved(RGB, "TIFF")
    random = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(content)
        broken[random.integers(8, 150)] = random.integers(256)
        try:
            open_image(bytes(broken))
        except ImageError as error:
            assert str(error).startswith(("is ", "has "))


def test_extension_of_a_jpeg_with_a_second_picture_is_jpeg() -> None:
    assert extension_of(RIGHT["JPEG with a second picture"]) == "jpeg"
