import numpy as np
import pytest

from onnx_esn.calibration import Recipe, default_recipe, load_recipe
from onnx_esn.errors import ImageSetError, RecipeError

from .tiny import spec


def write(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_is_read(tmp_path):
    path = write(
        tmp_path,
        'resize = [10, 20]\ncrop = 8\ninterpolation = "lanczos"\nchannels = "bgr"\n'
        'scale = 1\nmean = [1, 2.5, 3]\nstd = 128\nlayout = "nhwc"\n',
    )
    expected = Recipe((10, 20), 8, "lanczos", "bgr", 1.0, (1.0, 2.5, 3.0), 128.0, "nhwc")
    assert load_recipe(path) == expected


def test_keys_left_out_take_the_defaults(tmp_path):
    assert load_recipe(write(tmp_path, "")) == Recipe()
    assert load_recipe(write(tmp_path, "\ufeffcrop = 4")) == Recipe(crop=4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reszie = 3", r"unknown key 'reszie'; did you mean 'resize'\? \(allowed: resize, crop"),
        ("resize = 0", "resize = 0 must be a positive whole number"),
        ("resize = true", "resize = True must be"),
        ("resize = 2.5", "resize = 2.5 must be"),
        ("crop = [1, 2, 3]", r"crop = \[1, 2, 3\] must be"),
        ("crop = []", r"crop = \[\] must be"),
        ('interpolation = "cubic"', "interpolation = 'cubic' is not one of nearest, bilinear"),
        ("channels = 3", "channels = 3 is not one of rgb, bgr, gray"),
        ('channels = ["rgb"]', "channels = .* is not one of rgb"),
        ('layout = "hwc"', "layout = 'hwc' is not one of nchw, nhwc"),
        ('scale = "1/255"', "scale = '1/255' must be a finite number"),
        ("scale = inf", "scale = inf must be a finite number"),
        ("scale = 0", "scale = 0 turns every image into a constant"),
        ("std = 0", "std holds a 0"),
        ("std = [1, 0, 1]", "std holds a 0"),
        ("mean = [1, 2]", "mean holds 2 numbers; it must be one number or 3 numbers"),
        ('channels = "gray"\nmean = [1, 2, 3]', "mean holds 3 numbers; it must be one number here"),
        ("mean = [1, 2, nan]", "mean = nan must be a finite number"),
        ("[crop]\nsize = 3", "crop = {'size': 3} must be"),
        ("scale = ", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path, text, expected):
    path = write(tmp_path, text)
    with pytest.raises(RecipeError, match=expected) as raised:
        load_recipe(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_and_a_binary_one(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bin.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not valid TOML"):
        load_recipe(tmp_path / "bin.toml")


def test_describe_says_all_of_it():
    recipe = Recipe(256, 224, "bicubic", scale=1, mean=127, std=128)
    expected = "resize 256 (shorter side) bicubic, centre crop 224, rgb (x - 127) / 128, nchw"
    assert recipe.describe() == expected
    assert "[0.5, 0.25, 1]" in Recipe(mean=(0.5, 0.25, 1)).describe()
    assert "resize [4, 5]" in Recipe(resize=(4, 5)).describe()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (("N", 3, 32, 32), Recipe(32, 32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
        ((1, 1, 28, 28), Recipe(28, 28, channels="gray", mean=0.5, std=0.5)),
        ((None, 28, 28, 1), Recipe(28, 28, channels="gray", mean=0.5, std=0.5, layout="nhwc")),
    ],
)
def test_default_follows_the_input(shape, expected):
    assert default_recipe(spec(*shape)) == expected


def test_default_sizes():
    tall = default_recipe(spec("N", 3, 40, 60))
    assert (tall.resize, tall.crop) == ((40, 60), None)
    assert default_recipe(spec("N", 3, "H", "W")).crop == 224
    assert default_recipe(spec("N", "C", "H", 96)).crop == 96
    assert default_recipe(spec()).crop == 224
    assert default_recipe(spec("N", 16, 16, 3)).layout == "nhwc"


def test_default_for_8_bit_input_keeps_the_values():
    recipe = default_recipe(spec("N", 3, 8, 8, dtype=np.uint8))
    assert (recipe.scale, recipe.mean, recipe.std) == (1, 0, 1)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (spec("N", 10), "four axes"),
        (spec("N", 12, 8, 8), "has 12 channels"),
        (spec("N", 3, 8, 8, dtype=np.int8), "type is int8"),
    ],
)
def test_default_refuses_what_images_cannot_feed(bad, why):
    with pytest.raises(ImageSetError, match=why):
        default_recipe(bad)
