"""Golden values of simclr-augment: torchvision's operators on a small made image, with fixed parameters.

    python tools/golden/views.py        (torch, torchvision, pillow; writes crates/augment/tests/golden/*.ppm)

The image is made by integer arithmetic, and `crates/augment/tests/golden.rs` makes the same one. Pillow does the
resizing (8 bits, bicubic, antialiased); everything else is computed by torchvision on float tensors in [0, 1] and
rounded once, as simclr-augment does. With --compare-pillow it prints how far torchvision's 8-bit forms of the colour operators
are from the float ones.
"""

import math
import pathlib
import sys

import torch
import torchvision.transforms.functional as F
from PIL import Image
from torchvision.transforms import InterpolationMode

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/augment/tests/golden"


def triangle(a):
    return min(abs(a % 512 - 256), 255)


def made_image(width, height):
    """Ramps of every hue, a black disc, a white bar, a saturated corner."""

    def pixel(x, y):
        if (x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 6) ** 2:
            return (0, 0, 0)
        if 2 * width // 3 <= x < 2 * width // 3 + 2:
            return (255, 255, 255)
        if x < width // 8 and y < height // 8:
            return (255, 0, 40)
        return (triangle(5 * x + 3 * y), triangle(7 * x - 2 * y + x * y // 16), triangle(x * x // 8 + 4 * y))

    image = Image.new("RGB", (width, height))
    image.putdata([pixel(x, y) for y in range(height) for x in range(width)])
    return image


def tensor(image):
    return F.pil_to_tensor(image).float() / 255


def pillow(t):
    return F.to_pil_image((t * 255).round().to(torch.uint8))


def clip(t):
    return t.clamp(0, 1)


def sobel(image):
    """TensorFlow's sobel_edges, reflected at the border: the length of each channel's gradient."""
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([kernel, kernel.T])[:, None]
    padded = torch.nn.functional.pad(tensor(image)[:, None], (1, 1, 1, 1), mode="reflect")
    return pillow(clip(torch.nn.functional.conv2d(padded, kernels).norm(dim=1)))


def ablations(base):
    """Operators of the ablations and of AutoAugment's policy, on 8-bit values as torchvision's AutoAugment applies them."""
    pixels = F.pil_to_tensor(base)
    eight_bits = {
        "solarize": F.solarize(pixels, 128),
        "posterize": F.posterize(pixels, 4),
        "equalize": F.equalize(pixels),
        "auto_contrast": F.autocontrast(F.adjust_contrast(pixels, 0.4)),
        "invert": F.invert(pixels),
        "sharpness": F.adjust_sharpness(pixels, 1.7),
        "turn": F.rotate(pixels, 26.7),
        "shear": F.affine(pixels, 0.0, [0, 0], 1.0, [math.degrees(math.atan(0.17)), 0.0], center=[0, 0]),
        "rotate_90": torch.rot90(pixels, 1, [1, 2]),
        "rotate_270": torch.rot90(pixels, 3, [1, 2]),
    }
    return {name: F.to_pil_image(image) for name, image in eight_bits.items()} | {"sobel": sobel(base)}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    base = made_image(32, 32)
    large = made_image(100, 76)
    colors = {
        "brightness_up": lambda i: F.adjust_brightness(i, 1.6),
        "brightness_down": lambda i: F.adjust_brightness(i, 0.35),
        "contrast_up": lambda i: F.adjust_contrast(i, 1.7),
        "contrast_down": lambda i: F.adjust_contrast(i, 0.3),
        "saturation_up": lambda i: F.adjust_saturation(i, 1.8),
        "saturation_down": lambda i: F.adjust_saturation(i, 0.25),
        "hue_up": lambda i: F.adjust_hue(i, 0.17),
        "hue_down": lambda i: F.adjust_hue(i, -0.2),
        "gray": lambda i: F.rgb_to_grayscale(i, num_output_channels=3),
    }
    outputs = {name: pillow(clip(f(tensor(base)))) for name, f in colors.items()}
    # The kernel's side, 23 at 224, is 3 at 32, here with the largest sigma, and 5 at 40.
    outputs["blur_32"] = pillow(F.gaussian_blur(tensor(base), 3, 2.0))
    outputs["blur_40"] = pillow(F.gaussian_blur(tensor(made_image(40, 40)), 5, 0.8))

    def crop(image, left, top, width, height, size):
        return F.resized_crop(image, top, left, height, width, [size, size], InterpolationMode.BICUBIC, antialias=True)

    outputs["crop_enlarge"] = crop(base, 5, 9, 17, 12, 32)
    outputs["crop_shrink"] = crop(large, 3, 1, 95, 74, 32)
    outputs["crop_mixed_flip"] = F.hflip(crop(large, 20, 30, 51, 19, 32))
    # 87.5% of 76, 66.5, rounds to 66.
    outputs["central_33"] = crop(large, 17, 5, 66, 66, 33)

    t = tensor(F.hflip(crop(large, 10, 4, 60, 70, 40)))
    t = clip(F.adjust_hue(t, -0.11))
    t = clip(F.adjust_contrast(t, 1.4))
    t = clip(F.adjust_brightness(t, 1.2))
    t = clip(F.adjust_saturation(t, 0.6))
    outputs["family_40"] = pillow(clip(F.gaussian_blur(t, 5, 1.3)))

    outputs |= ablations(base)
    for name, image in outputs.items():
        image.save(OUT / f"{name}.ppm")
    if "--compare-pillow" in sys.argv:
        for name, f in colors.items():
            difference = (tensor(f(base)) - tensor(outputs[name])).abs() * 255
            print(f"{name}: mean {difference.mean():.3f}, largest {difference.max():.0f}")


main()
