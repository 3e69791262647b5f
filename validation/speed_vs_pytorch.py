# SPDX-License-Identifier: Apache-2.0
"""The same RegNetY + SwAV update (2x224 + 4x96 crops, random images already in memory) in seer and in PyTorch on this
machine: images per second of both and their ratio. By default float32, eager, on the processor; --torch-device cuda,
--precision bf16 (autocast) and --compile measure PyTorch as validation/gpu.sh does.

Both do all of it: trunk once per crop resolution, head, prototypes, Sinkhorn codes, loss, backward, LARS with momentum on
every parameter, row-normalised prototypes. PyTorch runs in both memory formats and its faster one counts. Rounds
alternate (PyTorch contiguous, PyTorch channels_last, seer, again), each in a fresh process, so that a slow minute of the
machine hits all of them; medians over the rounds are compared.

PyTorch gets one process with --threads threads; seer gets --seer-ranks ranks of threads / ranks threads each, BatchNorm
synchronised over all of them, so that both compute the same function.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))

TEMPERATURE, EPSILON, SINKHORN_ITERATIONS = 0.1, 0.05, 10
ASSIGNED = (0, 1)


def model_of(name):
    """Stage widths, depths and group widths by the pycls rule (torchvision's own presets differ at 8gf), and the head and
    crops of the configuration that seer runs."""
    with open(os.path.join(HERE, "..", "tests", "data", "presets.json")) as f:
        trunk = json.load(f)[name]
    with open(config_of(name), "rb") as f:
        config = tomllib.load(f)
    head = config["head"]
    crops = [(c["count"], c["size"]) for c in config["crops"]]
    return dict(trunk, head=head["dims"], head_norm=head.get("batchnorm", False), prototypes=head["prototypes"],
                crops=crops)


def config_of(name):
    candidates = [os.path.join(HERE, "..", "inputs", f"{prefix}{name}.toml") for prefix in ("bench_", "seer_", "")]
    return next(path for path in candidates if os.path.exists(path))


def torch_worker(name, images, memory_format, args):
    """One round in this process: milliseconds of each phase of the measured updates."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torchvision.models.regnet import BlockParams, RegNet

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    device = torch.device(args.torch_device)
    updates, warmup = args.updates, args.warmup
    m = model_of(name)
    stages = len(m["widths"])
    if args.crop_sizes:
        m["crops"] = [(n, size) for (n, _), size in zip(m["crops"], args.crop_sizes)]
    with device:
        trunk = RegNet(BlockParams(depths=m["depths"], widths=m["widths"], group_widths=m["group_widths"],
                                   bottleneck_multipliers=[1.0] * stages, strides=[2] * stages, se_ratio=0.25))
    trunk.fc = nn.Identity()
    layers = []
    for a, b in zip(m["head"][:-1], m["head"][1:]):
        layers += [nn.Linear(a, b)] + ([nn.BatchNorm1d(b)] if m["head_norm"] else []) + [nn.ReLU(inplace=True)]
    head = nn.Sequential(*layers[:-2 if m["head_norm"] else -1]).to(device)
    prototypes = nn.Linear(m["head"][-1], m["prototypes"], bias=False).to(device)
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    trunk.to(memory_format=layout).train()
    if args.compile != "no":
        torch._dynamo.config.recompile_limit = 512  # one block's code serves all widths and resolutions
        torch._dynamo.config.accumulated_recompile_limit = 4096
    if args.compile == "trunk":
        trunk.compile(dynamic=False)
    elif args.compile == "blocks":  # the same kernels, for blocks share nothing; compiled once for all equal ones
        for stage in trunk.trunk_output:
            for block in stage:
                block.compile(dynamic=False)
    crops = [torch.randn(n * images, 3, size, size, device=device).to(memory_format=layout) for n, size in m["crops"]]
    parameters = list(trunk.parameters()) + list(head.parameters()) + list(prototypes.parameters())
    momenta = [torch.zeros_like(p) for p in parameters]
    lr, momentum, weight_decay, trust = 0.1, 0.9, 1e-5, 1e-3
    crop_count = sum(n for n, _ in m["crops"])
    half = torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16")
    on_device = device.type == "cuda"
    wait = torch.cuda.synchronize if on_device else lambda: None

    @torch.no_grad()
    def codes(scores):
        q = torch.exp((scores - scores.max()) / EPSILON).t()
        q /= q.sum()
        k, n = q.shape
        for _ in range(SINKHORN_ITERATIONS):
            q *= (1.0 / k) / q.sum(dim=1, keepdim=True)
            q *= (1.0 / n) / q.sum(dim=0, keepdim=True)
        return (q / q.sum(dim=0, keepdim=True)).t()

    def forward():
        with half:
            z = F.normalize(head(torch.cat([trunk(x) for x in crops])).float(), dim=1)
            scores = prototypes(z).float()
        logp = F.log_softmax(scores / TEMPERATURE, dim=1).view(crop_count, images, -1)
        total = logp.sum(dim=0)
        loss = 0.0
        for a in ASSIGNED:  # all crops but a, together
            loss = loss - (codes(scores[a * images:(a + 1) * images].detach()) * (total - logp[a])).sum()
        return loss / (images * (crop_count - 1) * len(ASSIGNED))

    @torch.no_grad()
    def lars_foreach():
        # On a device the number of kernels counts, not what a cache holds.
        gradients = [p.grad for p in parameters]
        p_norms = torch.stack(torch._foreach_norm(parameters)).tolist()
        g_norms = torch.stack(torch._foreach_norm(gradients)).tolist()
        scales = [trust * pn / (gn + weight_decay * pn + 1e-8) if pn != 0 and gn != 0 else None
                  for pn, gn in zip(p_norms, g_norms)]
        torch._foreach_mul_(gradients, [1.0 if s is None else s for s in scales])
        torch._foreach_add_(gradients, torch._foreach_mul(parameters,
                                                          [0.0 if s is None else s * weight_decay for s in scales]))
        torch._foreach_mul_(momenta, momentum)
        torch._foreach_add_(momenta, gradients)
        torch._foreach_add_(parameters, momenta, alpha=-lr)
        for p in parameters:
            p.grad = None
        w = prototypes.weight
        w /= w.norm(dim=1, keepdim=True).clamp_min_(1e-12)

    @torch.no_grad()
    def lars():
        # Four passes over each tensor while it is in the cache; torch._foreach_* needs five over all of them and was 1.2 to
        # 2.6 times slower (CPU time, both cases, torch 1.13 and 2.15).
        p_norms = torch.stack(torch._foreach_norm(parameters)).tolist()
        g_norms = torch.stack(torch._foreach_norm([p.grad for p in parameters])).tolist()
        for p, v, pn, gn in zip(parameters, momenta, p_norms, g_norms):
            if pn != 0 and gn != 0:
                scale = trust * pn / (gn + weight_decay * pn + 1e-8)
                v.mul_(momentum).add_(p.grad, alpha=scale).add_(p, alpha=scale * weight_decay)
            else:
                v.mul_(momentum).add_(p.grad)
            p.add_(v, alpha=-lr)
            p.grad = None
        w = prototypes.weight
        w /= w.norm(dim=1, keepdim=True).clamp_min_(1e-12)

    phases = {"forward": [], "backward": [], "optimizer": []}
    for update in range(warmup + updates):
        if update == warmup:
            cpu = time.process_time()
        t0 = time.perf_counter()
        loss = forward()
        wait()
        t1 = time.perf_counter()
        loss.backward()
        wait()
        t2 = time.perf_counter()
        (lars_foreach if on_device else lars)()
        wait()
        t3 = time.perf_counter()
        if update >= warmup:
            for key, ms in zip(phases, (t1 - t0, t2 - t1, t3 - t2)):
                phases[key].append(1e3 * ms)
    cpu = 1e3 * (time.process_time() - cpu) / updates  # of all threads: tells on a machine that is not quiet
    steps = [sum(x) for x in zip(*phases.values())]
    out = {key + "_ms": statistics.median(ms) for key, ms in phases.items()}
    if on_device:
        out["peak_bytes"] = torch.cuda.max_memory_allocated()
    return dict(out, step_ms=statistics.median(steps), cpu_ms=cpu, loss=loss.item(), torch=torch.__version__,
                images=images, device=torch.cuda.get_device_name() if on_device else "cpu")


def run(command, environment=None):
    """Runs a program and returns the JSON object that it prints (the last line that is one)."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, **(environment or {})))
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}")
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        pass
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    sys.exit(f"{' '.join(command)}: printed no JSON object\n{done.stdout}")


def run_torch(args, name, images, memory_format):
    return run([sys.executable, os.path.abspath(__file__), "--worker", name, str(images), memory_format,
                "--threads", str(args.threads), "--updates", str(args.updates), "--warmup", str(args.warmup),
                "--torch-device", args.torch_device, "--precision", args.precision, "--compile", args.compile]
               + (["--crop-sizes", *map(str, args.crop_sizes)] if args.crop_sizes else []),
               {"OMP_NUM_THREADS": str(args.threads)})


def run_seer(args, name, images):
    threads = args.threads // args.seer_ranks
    command = [args.seer, "bench", "step", config_of(name), "--set", f"precision.compute={args.precision}",
               "--set", "swav.freeze_prototypes_updates=0",
               "--set", f"data.global_batch={images}", "--set", f"parallel.bn_group_size={args.seer_ranks}",
               "--updates", str(args.updates), "--json"]
    if args.seer_ranks > 1:
        command = args.mpirun.split() + ["-n", str(args.seer_ranks)] + command
    return run(command, {"OMP_NUM_THREADS": str(threads), "OMPI_MCA_mpi_yield_when_idle": "0"})


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seer", default=os.path.join(HERE, "..", "build", "host-release", "seer"), help="the executable")
    ap.add_argument("--mpirun", default="mpirun --oversubscribe --bind-to none", help="starter of several ranks")
    ap.add_argument("--seer-ranks", type=int, default=2, help="ranks of threads / ranks threads each")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--cases", default="400mf:8,8gf:2", help="model:images, comma-separated")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--updates", type=int, default=5, help="measured updates of a round")
    ap.add_argument("--warmup", type=int, default=2, help="PyTorch's updates before them")
    ap.add_argument("--torch-only", action="store_true")
    ap.add_argument("--torch-device", default="cpu", help="cpu or cuda; seer runs where it is built for")
    ap.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="bf16: PyTorch's autocast")
    ap.add_argument("--compile", default="no", choices=("no", "blocks", "trunk"),
                    help="torch.compile of each block, or of the whole trunk (takes minutes)")
    ap.add_argument("--formats", default="contiguous,channels_last", help="PyTorch's memory formats")
    ap.add_argument("--crop-sizes", type=int, nargs="+", help="instead of the configuration's, with --torch-only")
    ap.add_argument("--json", metavar="FILE", help="write all figures there as well")
    ap.add_argument("--worker", nargs=3, metavar=("MODEL", "IMAGES", "FORMAT"), help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.worker:
        name, images, memory_format = args.worker
        print(json.dumps(torch_worker(name, int(images), memory_format, args)))
        return
    if args.crop_sizes and not args.torch_only:
        sys.exit("--crop-sizes is for --torch-only")
    formats = args.formats.split(",")
    if not args.torch_only and args.threads % args.seer_ranks:
        sys.exit(f"--seer-ranks {args.seer_ranks} does not divide --threads {args.threads}")

    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load average {load:.1f} before the start: other programs share the cores, and the ratio means "
              "little; repeat on a quiet machine", file=sys.stderr, flush=True)
    report = []
    for case in args.cases.split(","):
        name, images = case.split(":")[0], int(case.split(":")[1])
        rounds = {kind: [] for kind in formats + ["seer"]}
        for r in range(args.rounds):
            for kind in rounds:
                if kind == "seer" and args.torch_only:
                    continue
                out = run_seer(args, name, images) if kind == "seer" else run_torch(args, name, images, kind)
                rounds[kind].append(out)
                print(f"{case} round {r + 1}: {kind:13s} {out['step_ms']:9.1f} ms", file=sys.stderr, flush=True)

        def median(kind, key="step_ms"):
            return statistics.median(o[key] for o in rounds[kind])

        version = rounds[formats[0]][0]["torch"]
        crops = " + ".join(f"{n}x{size}" for n, size in model_of(name)["crops"])
        print(f"\nRegNetY {name}, {images} images an update, {args.crop_sizes or crops} crops, {args.precision}, "
              f"compile {args.compile}, " + (f"{args.threads} threads" if args.torch_device == "cpu" else args.torch_device))
        print(f"{'':30s} {'step ms':>9s} {'images/s':>9s} {'forward':>9s} {'backward':>9s} {'optimizer':>9s}")
        for kind in formats:
            phases = " ".join(f"{median(kind, p + '_ms'):9.1f}" for p in ("forward", "backward", "optimizer"))
            name_of = f"PyTorch {version.split('+')[0]} {kind}"
            print(f"{name_of:30s} {median(kind):9.1f} {1e3 * images / median(kind):9.3f} {phases}")
        best = min(formats, key=median)
        entry = dict(case=case, images=images, threads=args.threads, torch=version, load_before=load, rounds=rounds, best=best,
                     torch_images_per_s=1e3 * images / median(best))
        if not args.torch_only:
            where = f"{args.seer_ranks} ranks x {args.threads // args.seer_ranks} threads"
            phases = [p + "_ms" for p in ("forward", "backward", "optimizer")]
            known = all(p in o for o in rounds["seer"] for p in phases)
            split = " ".join(f"{median('seer', p):9.1f}" for p in phases) if known else ""
            print(f"{'seer, ' + where:30s} {median('seer'):9.1f} {1e3 * images / median('seer'):9.3f} {split}")
            ratio = median(best) / median("seer")
            print(f"seer / PyTorch ({best}), images per second: {ratio:.2f}", flush=True)
            entry.update(seer_images_per_s=1e3 * images / median("seer"), ratio=ratio, seer_ranks=args.seer_ranks)
        report.append(entry)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(report, f, indent=1)


if __name__ == "__main__":
    main()
