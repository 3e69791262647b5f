#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the test images of this folder with Pillow, and beside each what Pillow decodes it to (name.rgb: raw rows).

ycck.jpg and arithmetic.jpg, which Pillow cannot write, were made from the same pixels with libjpeg-turbo
(jpeg_set_colorspace JCS_YCCK; arith_code = TRUE). 16-bit grey is expected as its high byte (Pillow would clip it).
"""
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
HEIGHT, WIDTH = 16, 24


def path(name):
    return os.path.join(HERE, name)


def expect(name, pixels):
    with open(path(name + ".rgb"), "wb") as f:
        f.write(np.ascontiguousarray(pixels.astype(np.uint8)).tobytes())


def save(name, image, **options):
    image.save(path(name), **options)
    expect(name, np.asarray(ImageOps.exif_transpose(Image.open(path(name))).convert("RGB")))


def exif(orientation, order):
    t = "<" if order == "II" else ">"
    entry = struct.pack(t + "HHIHH", 0x112, 3, 1, orientation, 0)
    return b"Exif\0\0" + order.encode() + struct.pack(t + "HIH", 42, 8, 1) + entry + struct.pack(t + "I", 0)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, pixel, depth, colour_type, width=WIDTH, height=HEIGHT, interlaced=False, declared=None):
    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in adam7 if interlaced else [(0, 0, 1, 1)]:
        for y in range(y0, height, dy):
            raw += b"\0" + b"".join(pixel(y, x) for x in range(x0, width, dx))
    header = struct.pack(">IIBBBBB", *(declared or (width, height)), depth, colour_type, 0, 0, int(interlaced))
    with open(path(name), "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def main():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    a = np.stack([x * 255 // (WIDTH - 1), y * 255 // (HEIGHT - 1), 255 - (x + y) * 255 // (HEIGHT + WIDTH - 2)], 2)
    a = a.astype(np.uint8)
    a[2:7, 3:9] = [250, 20, 30]
    a[9:14, 14:21] = [10, 30, 240]
    low = np.random.default_rng(3).integers(0, 256, a.shape)
    image = Image.fromarray(a)
    transparent = image.copy()
    transparent.putalpha(Image.fromarray((x * 10).astype(np.uint8)))

    save("rgb.jpg", image, quality=92)
    save("grey.jpg", image.convert("L"), quality=92)
    save("progressive.jpg", image, quality=92, progressive=True)
    save("cmyk.jpg", image.convert("CMYK"), quality=92)
    for o in range(2, 9):
        save(f"orientation{o}.jpg", image, quality=90, exif=exif(o, "II" if o % 2 else "MM"))
    save("rgb.png", image)
    save("palette.png", image.quantize(16))
    save("rgba.png", transparent)
    save("grey_alpha.png", transparent.convert("LA"))
    save("bilevel.png", image.convert("1"))
    png("interlaced.png", lambda i, j: bytes(a[i, j]), 8, 2, interlaced=True)
    expect("interlaced.png", a)
    png("rgb16.png", lambda i, j: struct.pack(">HHH", *(int(v) * 256 + int(w) for v, w in zip(a[i, j], low[i, j]))), 16, 2)
    expect("rgb16.png", a)
    png("grey16.png", lambda i, j: struct.pack(">H", int(a[i, j, 0]) * 256 + int(low[i, j, 0])), 16, 0)
    expect("grey16.png", np.repeat(a[:, :, :1], 3, 2))
    png("bomb.png", lambda i, j: b"\0", 8, 0, width=1, height=1, declared=(60000, 60000))
    save("lossy.webp", image, quality=90)
    save("lossless.webp", image, lossless=True)
    save("alpha.webp", transparent, lossless=True, exact=True)
    image.save(path("animated.webp"), save_all=True, append_images=[image.transpose(0)], duration=100)
    image.save(path("picture.gif"))


main()
