#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SwAV's input pipeline as a Pillow/torchvision user writes it, on one thread, timed.

    loader_vs_pillow.py SHARD_DIR [--images N] [--batch B]

Reads encoded images from seer's shards in random order, decodes them, makes 2 x 224 + 4 x 96 crops (random resized
crop, flip, colour jitter, grey, Gaussian blur, normalise) and stacks them into batches. Prints one JSON object.
"""
import argparse
import glob
import io
import json
import os
import random
import time

import h5py
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFilter
from torchvision import transforms as T


class Blur:
    """Gaussian blur with probability 0.5 and radius U[0.1, 2] (method.md 4.1)."""

    def __call__(self, image):
        if random.random() > 0.5:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def crop(size, scale):
    jitter = T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8)
    return T.Compose([T.RandomResizedCrop(size, scale=scale), T.RandomHorizontalFlip(), jitter, T.RandomGrayscale(0.2),
                      Blur(), T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])


class Shards:
    def __init__(self, folder):
        self.files = []
        for path in sorted(glob.glob(os.path.join(folder, "*.h5"))):
            with h5py.File(path, "r") as f:
                data = f["images/bytes"]
                self.files.append((open(path, "rb"), data.id.get_offset(), f["images/offset"][:].astype(np.int64)))
        self.index = [(k, i) for k, f in enumerate(self.files) for i in range(len(f[2]) - 1)]

    def read(self, n):
        k, i = self.index[n]
        file, start, offset = self.files[k]
        file.seek(start + int(offset[i]))
        return file.read(int(offset[i + 1] - offset[i]))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("shards")
    ap.add_argument("--images", type=int, default=512)
    ap.add_argument("--batch", type=int, default=32)
    a = ap.parse_args()
    torch.set_num_threads(1)
    shards = Shards(a.shards)
    crops = [crop(224, (0.14, 1.0))] * 2 + [crop(96, (0.05, 0.14))] * 4
    order = np.random.default_rng(0).permutation(len(shards.index))

    def images(first, count):
        decode_s, views = 0.0, [[] for _ in crops]
        for j in range(first, first + count):
            start = time.perf_counter()
            image = Image.open(io.BytesIO(shards.read(order[j % len(order)]))).convert("RGB")
            decode_s += time.perf_counter() - start
            for v, make in zip(views, crops):
                v.append(make(image))
        return [torch.stack(v) for v in views], decode_s

    images(0, a.batch)
    decode_s, done = 0.0, 0
    start = time.perf_counter()
    while done < a.images:
        decode_s += images(a.batch + done, a.batch)[1]
        done += a.batch
    seconds = time.perf_counter() - start
    print(json.dumps({"images_per_s": done / seconds, "decode_ms_per_image": decode_s / done * 1e3,
                      "augment_ms_per_image": (seconds - decode_s) / done * 1e3, "images": done,
                      "pillow": PIL.__version__, "torchvision": torchvision.__version__}))


if __name__ == "__main__":
    main()
