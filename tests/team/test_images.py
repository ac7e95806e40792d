"""Images that others send: what each format can hold is shown right or refused, and nothing huge is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
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


def png(bits: int, colour: int, row: bytes, transparent: bytes = b"") -> bytes:
    """A PNG of 2 x 2 pixels, both rows the same, perhaps with a colour that stands for transparency."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 2, bits, colour, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * 2)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"tRNS", transparent) if transparent else b"")
    return head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def swapped_profile() -> bytes:
    """An RGB profile of a device whose red is blue and the other way round."""
    return SRGB.replace(b"rXYZ", b"-XYZ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"-XYZ", b"bXYZ", 1)


def cmyk_profile() -> bytes:
    """The profile of a press whose four inks are all black, which nobody would guess of cyan: a `lut8` of 2 steps."""
    ramp, identity = bytes(range(256)), (0x10000 * (position % 4 == 0) for position in range(9))
    corners = (bytes([255 if inks == 0 else 0, 128, 128]) for inks in range(16))  # L*, a*, b* without and with each ink
    table = struct.pack(">4sIBBBB9i", b"mft1", 0, 4, 3, 2, 0, *identity) + ramp * 4 + b"".join(corners) + ramp * 3
    size, white = 128 + 16 + len(table), (0xF6D6, 0x10000, 0xD32D)
    header = (
        struct.pack(">I4sI4s4s4s", size, b"", 0x2100000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp" + bytes(28)
    )
    header += struct.pack(">iii", *white) + bytes(48)
    return header + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = Image.new("L", (2, 2), 0x80)
RGB = Image.new("RGB", (2, 2), (0x80, 0x80, 0x80))
CMYK = Image.new("CMYK", (2, 2), (0, 0, 0, 0x7F))
RIGHT = {
    "BMP L": saved(GREY, "BMP"),
    "BMP RGB": saved(RGB, "BMP"),
    "JPEG L": saved(GREY, "JPEG"),
    "JPEG RGB": saved(RGB, "JPEG"),
    "JPEG CMYK": saved(CMYK, "JPEG", quality=100),
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
    "TIFF CMYK": saved(CMYK, "TIFF"),
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
    "PNG RGB with a transparent colour": png(8, 2, b"\x80" * 6, b"\0\x01" * 3),
    "JPEG with a profile that is sRGB's": saved(RGB, "JPEG", icc_profile=SRGB),
    "JPEG with a damaged profile": saved(RGB, "JPEG", icc_profile=b"no profile"),
    "JPEG L with a profile of colours": saved(GREY, "JPEG", icc_profile=swapped_profile()),
    "JPEG CMYK with a damaged profile": saved(CMYK, "JPEG", quality=100, icc_profile=cmyk_profile()[:500]),
}
REFUSED = {
    "TIFF I": saved(Image.new("I", (2, 2), 0x8000), "TIFF"),
    "TIFF F": saved(Image.new("F", (2, 2), 0.5), "TIFF"),
    "TIFF F, white is 0": tiff(struct.pack("<4f", *[0.5] * 4), (32,), photometric=0, sample=3),
    "TIFF 8 bits signed": tiff(b"\x80" * 4, (8,), sample=2),
    "TIFF 16 bits signed": tiff(b"\x00\x80" * 4, (16,), sample=2),
}
SHAPE = Image.fromarray(np.array([[255, 0], [255, 0]], np.uint8))
SHAPES = {  # black, its left half opaque
    "LA": saved(Image.merge("LA", (Image.new("L", (2, 2)), SHAPE)), "PNG"),
    "RGBA": saved(Image.merge("RGBA", (*Image.new("RGB", (2, 2)).split(), SHAPE)), "PNG"),
    "RGBA in WebP": saved(Image.merge("RGBA", (*Image.new("RGB", (2, 2)).split(), SHAPE)), "WEBP", lossless=True),
    "P": saved(Image.merge("RGBA", (*Image.new("RGB", (2, 2)).split(), SHAPE)).quantize(2), "PNG"),
    "1, with a transparent colour": png(1, 0, b"\x40", b"\0\1"),
    "L, with a transparent colour": png(8, 0, b"\x00\x80", b"\0\x80"),
    "RGB, with a transparent colour": png(8, 2, b"\x00" * 3 + b"\x80" * 3, b"\0\x80" * 3),
    "La in TIFF": tiff(b"\x00\xff\x00\x00" * 2, (8, 8), extra=1),
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_open_image_with_a_profile_shows_its_colours(kind: str) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    pixels = np.asarray(open_image(saved(red, kind, icc_profile=swapped_profile()))).astype(int)
    assert np.abs(pixels - (0, 0, 255)).max() <= 2
    assert np.array_equal(open_image(saved(red, kind, icc_profile=SRGB)), open_image(saved(red, kind)))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_open_image_of_inks_is_as_their_profile_says(kind: str) -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert np.asarray(open_image(saved(cyan, kind, icc_profile=cmyk_profile()))).max() <= 2
    assert open_image(saved(cyan, kind)).getpixel((0, 0)) == (0, 255, 255), "without a profile, as screens show cyan"


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_open_image_drawn_by_its_transparency_is_on_white(content: bytes, mode: str) -> None:
    left, right = np.asarray(open_image(content).convert(mode))[0]
    assert (left.max(), right.min()) == (0, 255)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_open_image_that_is_transparent_all_over_is_refused(mode: str, kind: str) -> None:
    with pytest.raises(ImageError, match=r"^is transparent all over: save it without transparency"):
        open_image(saved(Image.new(mode, (2, 2)), kind))


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_open_image_of_several_pages_is_refused(kind: str) -> None:
    content = saved(RGB, kind, save_all=True, append_images=[Image.new("RGB", (2, 2)), RGB])
    with pytest.raises(ImageError, match=r"^has 3 pages or frames: save the one that counts"):
        open_image(content)


@pytest.mark.parametrize(
    "content",
    [
        png(4, 0, b"\x12", b"\0\1"),
        png(16, 0, b"\0\0\x80\0", b"\x80\0"),
        png(16, 2, b"\0" * 6 + b"\x80\0" * 3, b"\x80\0" * 3),
    ],
    ids=["L 4 bits", "L 16 bits", "RGB 16 bits"],
)
def test_open_image_with_a_transparent_colour_that_pillow_mistakes_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError, match=r"^has a transparent colour of other than 8 bits: save it with an alpha"):
        open_image(content)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_open_image_shrunk_refuses_the_same(kind: str) -> None:
    """`prepare` checks images by it, so nothing may be left for training to refuse."""
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.fromarray(random.integers(0, 256, (40, 30, 3), np.uint8))
    content = saved(noise, kind, exif=exif, icc_profile=SRGB)
    problems = set()
    for _ in range(150):
        broken = bytearray(content[: random.integers(len(content) // 2, 2 * len(content))])
        broken[random.integers(len(broken))] = random.integers(256)
        verdicts = [verdict(bytes(broken), shrink) for shrink in (False, True)]
        assert verdicts[0] == verdicts[1]
        problems.add(verdicts[0])
    assert len(problems) > 1


def verdict(content: bytes, shrink: bool) -> str:
    try:
        open_image(content, shrink)
    except ImageError as error:
        return str(error)
    return "right"


def test_extension_of_a_jpeg_with_a_second_picture_is_jpeg() -> None:
    assert extension_of(RIGHT["JPEG with a second picture"]) == "jpeg"
