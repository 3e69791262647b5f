# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/roofline.md: what `seer plan` and `seer bench conv --plan` say of one device, as Markdown. Nothing is
measured. SEER chooses the executable.
    validation/roofline.py [--machine inputs/machines/dgx_h100.toml] [--models 16gf,32gf,128gf,256gf] [--target 0.45]
"""
import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..")
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--machine", default=os.path.join(ROOT, "inputs", "machines", "dgx_h100.toml"))
ap.add_argument("--models", default="16gf,32gf,128gf,256gf")
ap.add_argument("--images", default="16,32,64")
ap.add_argument("--layers", default="128gf", help="model of the table of layers")
ap.add_argument("--target", type=float, default=0.45)
args = ap.parse_args()
seer = os.environ.get("SEER", os.path.join(ROOT, "build", "host-release", "seer"))


def run(*command):
    done = subprocess.run([seer, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"seer {' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout)


def plan(model, images, *settings):
    pairs = [f"data.global_batch={images}", "data.source=crops", "precision.compute=bf16", "parallel.bn_group_size=1",
             "parallel.shard=none", "checkpoint.async=false", *settings]
    command = ["plan", os.path.join(ROOT, "inputs", f"seer_{model}.toml"), "--machine", args.machine, "--json"]
    return run(*command, *(word for pair in pairs for word in ("--set", pair)))


def conv(model, images):
    return run("bench", "conv", "--plan", "--machine", args.machine, "--preset", model, "--precision", "bf16", "--size",
               "224,96", "--batch", f"{2 * images},{4 * images}", "--json")


def table(head, rows):
    print("| " + " | ".join(head) + " |\n| --- |" + " --: |" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def share(flops, ms, peak):
    """Of the peak, for arithmetic that gets so much time; a dash where no time is left."""
    return f"{flops / (ms * 1e-3) / peak:.2f}" if ms > 0 else "none"


models = args.models.split(",")
peak = conv(models[0], 1)["peak_gflop_per_s"] * 1e9

def grouped_at(products, ms):
    """Share of the peak that grouped convolutions need where all other products run at OTHERS of it (or, where memory
    bounds them, at the roof), with so much time for all products."""
    OTHERS = 0.7
    grouped = [w for w in products if w["kind"] == "grouped"]
    rest = sum(max(w["roof_ms"], 1e3 * w["flops"] / (OTHERS * peak)) for w in products if w["kind"] != "grouped")
    return share(sum(w["flops"] for w in grouped), ms - rest, peak)


updates, needs = [], []
for model in models:
    for images in map(int, args.images.split(",")):
        p = plan(model, images, "parallel.recompute=none")
        products = [w for w in p["work"] if w["kind"] != "stream"]
        streams = [w for w in p["work"] if w["kind"] == "stream"]
        product_roof, stream_roof = (sum(w["roof_ms"] for w in some) for some in (products, streams))
        roof = product_roof + stream_roof
        arithmetic = sum(w["flops"] for w in products)
        passes = sum(w["ms"] for w in streams)
        fixed = sum(w["ms"] for w in streams if w["bytes_per_element"] == 4)
        target = 1e3 * p["model_flops"] / (args.target * peak)
        updates.append([f"{model}, {images}", f"{p['model_flops'] * 1e-12:.1f}", f"{product_roof:.1f}", f"{stream_roof:.1f}",
                        f"{roof:.1f}", f"{100 * p['model_flops'] / (roof * 1e-3) / peak:.0f} %", f"{p['product_ms']:.1f}",
                        f"{p['memory_bound_ms']:.1f}", f"{p['step_ms']:.1f}", f"{p['images_per_s']:.0f}",
                        f"{100 * p['peak_share']:.1f} %", f"{p['peak_rank_bytes'] / 2**30:.1f}"])
        needs.append([f"{model}, {images}", f"{target:.1f}", f"{passes:.1f}", f"{fixed:.1f}",
                      share(arithmetic, target - passes, peak), share(arithmetic, target - stream_roof, peak),
                      share(arithmetic, target - stream_roof / 2, peak), grouped_at(products, target - stream_roof),
                      grouped_at(products, target - stream_roof / 2), share(arithmetic, product_roof, peak),
                      share(arithmetic, p["product_ms"], peak)])

print(f"**Updates** ({os.path.basename(args.machine)}, one rank, 2x224 + 4x96, bf16, nothing recomputed)\n")
table(["model, images", "TFLOP", "products, roof ms", "passes, roof ms", "update, roof ms", "of peak", "products, planned ms",
       "passes, planned ms", "update, planned ms", "images/s", "of peak", "GiB"], updates)
print(f"**What {100 * args.target:.0f} % of the peak asks of the products**\n")
table(["model, images", "update ms", "passes, planned ms", "of these in fp32 ms", "products at, passes as planned",
       "passes at the roof", "half the passes at the roof", "grouped at, others at 0.7, passes at the roof", "half the passes", "products at the roof", "products planned"], needs)

layers = conv(args.layers, 32)
rows = []
for layer in sorted(layers["layers"], key=lambda l: -sum(l.get(d + "_planned_ms", 0) for d in (
        "forward", "backward_data", "backward_weights")) * l["count"]):
    named = [d for d in ("forward", "backward_data", "backward_weights") if d + "_bytes" in layer]
    flops = 1e9 * layer["gflop"] * len(named) * layer["count"]
    total = sum(layer[d + "_bytes"] for d in named) * layer["count"]
    planned = sum(layer[d + "_planned_ms"] for d in named) * layer["count"]
    roof = sum(layer[d + "_roof_ms"] for d in named) * layer["count"]
    bound = "peak" if flops / total > peak / (layers["peak_gb_per_s"] * 1e9) else "memory"
    rows.append([layer["name"], f"{layer['height']}²", layer["count"], f"{flops * 1e-12:.3f}", f"{total * 1e-9:.2f}",
                 f"{flops / total:.0f}", bound, f"{roof:.2f}", f"{planned:.2f}", f"{flops / planned / 1e-3 / peak:.2f}"])
print(f"**Layers of {args.layers}**, 32 images, all three directions, all calls of a shape, longest first by the planned time\n")
table(["convolution", "at", "times", "TFLOP", "GB", "FLOP/byte", "bound", "roof ms", "planned ms", "planned share"], rows)

print("**Memory of 256GF with 16 images**\n")
rows = []
for recompute, budget in (("none", 0), ("auto", 32 * 10**9), ("cheap", 0), ("block", 0)):
    p = plan("256gf", 16, f"parallel.recompute={recompute}", f"parallel.memory_budget_bytes={budget}")
    m = {k: v / 2**30 for k, v in p["memory"].items()}
    rows.append([recompute + (f", {budget * 1e-9:.0f} GB" if budget else ""), f"{m['parameters'] + m['gradients'] + m['momentum']:.1f}", f"{m['activations']:.1f}",
                 f"{p['peak_rank_bytes'] / 2**30 - m['parameters'] - m['gradients'] - m['momentum'] - m['activations']:.1f}",
                 f"{p['peak_rank_bytes'] / 2**30:.1f}", f"{p['peak_rank_bytes'] * 1e-9:.1f}", f"{p['step_ms']:.0f}"])
table(["recompute", "parameters, gradients, momentum GiB", "activations", "the rest", "GiB in all", "GB in all",
       "update, planned ms"], rows)
