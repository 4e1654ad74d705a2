import struct
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from onnx_esn.calibration import Recipe
from onnx_esn.calibration.images import UnreadableImageError, decode_image, load_pixels

RAW = Recipe(scale=1)
RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp", "PNG"])
def test_lossless_formats_give_their_pixels(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, Image.fromarray(COLOUR), f"a.{suffix}", **options)
    values = decode_image(path, RAW)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, COLOUR.transpose(2, 0, 1))


def test_jpeg(tmp_path):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    path = saved(tmp_path, Image.fromarray(flat), "a.jpg", quality=95)
    np.testing.assert_allclose(decode_image(path, RAW).transpose(1, 2, 0), flat, atol=3)


def test_gray_file_feeds_three_channels_and_one(tmp_path):
    path = saved(tmp_path, Image.fromarray(GRAY))
    np.testing.assert_array_equal(decode_image(path, RAW), np.stack([GRAY] * 3))
    one = decode_image(path, Recipe(scale=1, channels="gray"))
    np.testing.assert_array_equal(one, GRAY[None])


def test_colour_file_to_gray_is_luma(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOUR))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    gray = decode_image(path, Recipe(scale=1, channels="gray"))
    np.testing.assert_allclose(gray[0], luma, atol=1)


def test_bilevel(tmp_path):
    bits = GRAY > 127
    path = saved(tmp_path, Image.fromarray(bits))
    np.testing.assert_array_equal(decode_image(path, RAW)[1], bits * np.float32(255))


def test_palette(tmp_path):
    image = Image.fromarray(COLOUR).quantize(8)
    path = saved(tmp_path, image)
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(path, RAW), expected)


def test_palette_with_transparent_entry(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="L").convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = saved(tmp_path, image, transparency=bytes([255, 0, 128]))
    expected = [[255, 0, 0], [0, 0, 0], [0, 0, 128]]
    np.testing.assert_array_equal(decode_image(path, RAW)[:, 0].T, expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_black(tmp_path, mode):
    alpha = np.array([[0, 128, 255]], np.uint8)
    bands = [np.full((1, 3), 200, np.uint8)] * (3 if mode == "RGBA" else 1)
    path = saved(tmp_path, Image.fromarray(np.dstack([*bands, alpha])))
    values = decode_image(path, RAW)
    np.testing.assert_allclose(values[:, 0], [[0, 200 * 128 / 255, 200]] * 3, atol=1)


def test_transparent_colour_key(tmp_path):
    image = Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8))
    path = saved(tmp_path, image, transparency=(9, 9, 9))
    np.testing.assert_array_equal(decode_image(path, RAW)[:, 0].T, [[0, 0, 0], [1, 2, 3]])


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_cmyk(tmp_path, name):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[..., 0] = 255  # pure cyan
    path = saved(tmp_path, Image.fromarray(inks, mode="CMYK"), name)
    np.testing.assert_allclose(decode_image(path, RAW)[:, 8, 8], [0, 255, 255], atol=4)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path, name):
    wide = np.array([[0, 257, 1000, 40000, 65535]], np.uint16)
    path = saved(tmp_path, Image.fromarray(wide), name)
    for recipe, channels in ((RAW, 3), (Recipe(scale=1, channels="gray"), 1)):
        values = decode_image(path, recipe)
        assert values.shape == (channels, 1, 5)
        np.testing.assert_allclose(values[-1], wide / 257, rtol=1e-6)


def test_16_bits_big_endian_and_resized(tmp_path):
    wide = np.full((4, 4), 51400, ">u2")
    wide[:, 2:] = 0
    header = struct.pack(">2sHI", b"MM", 42, 8)
    tags = [
        (256, 3, 4), (257, 3, 4), (258, 3, 16), (259, 3, 1), (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 3, 4), (279, 4, 32),
    ]  # fmt: skip
    body = struct.pack(">H", len(tags))
    for tag, kind, value in tags:
        body += struct.pack(">HHI", tag, kind, 1)
        body += struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
    (tmp_path / "a.tif").write_bytes(header + body + struct.pack(">I", 0) + wide.tobytes())
    assert decode_image(tmp_path / "a.tif", RAW)[0, 0].tolist() == [200, 200, 0, 0]
    sharp = Recipe(resize=(8, 8), interpolation="bicubic", scale=1)
    values = decode_image(tmp_path / "a.tif", sharp)
    assert values.shape == (3, 8, 8)
    assert values.min() == 0
    assert values.max() <= 255


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(tmp_path, dtype):
    path = saved(tmp_path, Image.fromarray(np.ones((3, 3), dtype)), "a.tif")
    with pytest.raises(UnreadableImageError, match="pixels have no known range"):
        decode_image(path, RAW)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    turns = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(COLOUR), exif=exif)
    expected = turns[orientation](COLOUR).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(path, RAW), expected)


def test_broken_exif_does_not_lose_the_image(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOUR), exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")
    assert decode_image(path, RAW).shape == (3, 5, 7)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (250, 10)]
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(path, RAW)[0], np.full((4, 4), 250))


def test_arithmetic_channels_and_layout(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOUR))
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    recipe = Recipe(mean=tuple(mean), std=tuple(std), channels="bgr", layout="nhwc")
    values = decode_image(path, recipe)
    assert values.flags.c_contiguous
    np.testing.assert_allclose(values, (COLOUR[..., ::-1] / 255 - mean) / std, atol=1e-6)


def test_lite0_style_recipe(tmp_path):
    pixels = RNG.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(pixels))
    recipe = Recipe(256, 224, "bicubic", scale=1, mean=127, std=128)
    resized = np.asarray(Image.fromarray(pixels).resize((341, 256), Image.Resampling.BICUBIC))
    # centre: (341 - 224) / 2 = 58.5, which rounds to even
    expected = (resized[16:240, 58:282].astype(np.float64) - 127) / 128
    values = decode_image(path, recipe)
    np.testing.assert_allclose(values, expected.transpose(2, 0, 1), atol=1e-6)


def test_resize_exact_and_crop_oblong(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOUR))
    assert decode_image(path, Recipe(resize=(9, 4))).shape == (3, 9, 4)
    assert decode_image(path, Recipe(crop=(2, 3))).shape == (3, 2, 3)
    cropped = decode_image(path, Recipe(crop=(3, 5), scale=1))
    np.testing.assert_array_equal(cropped, COLOUR[1:4, 1:6].transpose(2, 0, 1))
    nearest = decode_image(path, Recipe(resize=(10, 14), interpolation="nearest", scale=1))
    np.testing.assert_array_equal(nearest[:, ::2, ::2], COLOUR.transpose(2, 0, 1))


def test_8_bit_pixels_stay_small(tmp_path):
    assert load_pixels(saved(tmp_path, Image.fromarray(COLOUR)), RAW).dtype == np.uint8


def test_crop_larger_than_the_image(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOUR))
    with pytest.raises(UnreadableImageError, match="5 x 7 pixels are less than the crop 6 x 6"):
        decode_image(path, Recipe(crop=6))


def test_unreadable_files(tmp_path):
    good = saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), "g.jpg")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    png = bytearray(saved(tmp_path, Image.fromarray(COLOUR), "g.png").read_bytes())
    png[60] ^= 255
    (tmp_path / "flipped.png").write_bytes(bytes(png))
    for name in ("cut.jpg", "text.png", "empty.png", "script.png", "flipped.png", "none.png"):
        with pytest.raises(UnreadableImageError) as raised:
            decode_image(tmp_path / name, RAW)
        assert str(raised.value)


def test_pixel_limit_is_kept(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(COLOUR))
    for limit in (34, 10):  # Pillow itself warns above the limit and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UnreadableImageError, match=r"over the limit|exceeds limit"):
            decode_image(path, RAW)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImageError, match="resizing to 70 x 50 is over the limit"):
        decode_image(path, Recipe(resize=50))


def test_decoding_in_threads_leaves_the_warning_filters_alone(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOUR))
    before = list(warnings.filters)
    workers = [
        threading.Thread(target=lambda: [decode_image(path, RAW) for _ in range(20)])
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert warnings.filters == before
