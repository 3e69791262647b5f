# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/randaugment.h5: the operations of timm's RandAugment as Pillow computes them.

    python3 validation/reference/randaugment.py tests/data/randaugment.h5

image, flat: [height, width, 3]. <operation>/argument [n]: degrees, parts of the width or height, slopes, factors, bits,
thresholds or summands; <operation>/output [n, height, width, 3]: the image after the operation. `flat` has channels
with one value and with two, for the operations that look at the histogram. Written with Pillow 9.4.
"""
import sys

import h5py
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

FILL = (124, 116, 104)  # ImageNet's mean
FORM = {"resample": Image.BILINEAR, "fillcolor": FILL}


def picture(width, height):
    """Slopes with noise, not over the whole range."""
    state, out = 1, np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
                slope = (x * (c + 1) + y * (3 - c)) * 200 // (3 * (width + height))
                out[y, x, c] = 20 + slope + (state >> 33) % (12 + 5 * c)
    return out


def affine(image, *matrix):
    return image.transform(image.size, Image.AFFINE, matrix, **FORM)


def solarize_add(image, add):
    return image.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3)


OPERATIONS = {
    "auto_contrast": (lambda i, _: ImageOps.autocontrast(i), [0]),
    "equalize": (lambda i, _: ImageOps.equalize(i), [0]),
    "invert": (lambda i, _: ImageOps.invert(i), [0]),
    "rotate": (lambda i, v: i.rotate(v, **FORM), [-30, 17.3, 0]),
    "posterize": (lambda i, v: ImageOps.posterize(i, int(v)), [0, 3]),
    "solarize": (lambda i, v: ImageOps.solarize(i, v), [0, 97, 256]),
    "solarize_add": (lambda i, v: solarize_add(i, int(v)), [55, 110]),
    "color": (lambda i, v: ImageEnhance.Color(i).enhance(v), [0.1, 1.7]),
    "contrast": (lambda i, v: ImageEnhance.Contrast(i).enhance(v), [0.1, 1.7]),
    "brightness": (lambda i, v: ImageEnhance.Brightness(i).enhance(v), [0.1, 1.7]),
    "sharpness": (lambda i, v: ImageEnhance.Sharpness(i).enhance(v), [0.1, 1.9]),
    "shear_x": (lambda i, v: affine(i, 1, v, 0, 0, 1, 0), [-0.3, 0.11]),
    "shear_y": (lambda i, v: affine(i, 1, 0, 0, v, 1, 0), [-0.3, 0.11]),
    "translate_x": (lambda i, v: affine(i, 1, 0, v * i.size[0], 0, 1, 0), [-0.45, 0.183]),
    "translate_y": (lambda i, v: affine(i, 1, 0, 0, 0, 1, v * i.size[1]), [-0.45, 0.183]),
}


def main(path):
    image = picture(27, 19)
    flat = image.copy()
    flat[:, :, 0] = 77
    flat[:, :, 1] = np.where(image[:, :, 1] > 100, 40, 41)
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        def put(name, values):
            file.create_dataset(name, data=values, chunks=values.shape, compression=9)
        put("image", image)
        put("flat", flat)
        for name, (operation, arguments) in OPERATIONS.items():
            file[f"{name}/argument"] = np.array(arguments, np.float64)
            put(f"{name}/output", np.stack([operation(Image.fromarray(image), v) for v in arguments]))
        for name in ("auto_contrast", "equalize"):
            put(f"{name}/of_flat", np.asarray(OPERATIONS[name][0](Image.fromarray(flat), 0)))


main(sys.argv[1])
