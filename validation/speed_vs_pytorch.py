# SPDX-License-Identifier: Apache-2.0
"""The same RegNetY + SwAV update (2x224 + 4x96 crops, float32, random images already in memory) in seer and in eager
PyTorch on this machine: images per second of both and their ratio.

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

HERE = os.path.dirname(os.path.abspath(__file__))

# Stage widths, depths and group width by the pycls rule (torchvision's own presets differ at 8gf), and the head.
MODELS = {
    "400mf": dict(widths=[48, 104, 208, 440], depths=[1, 3, 6, 6], group=8, head=[440, 2048, 2048, 256]),
    "8gf": dict(widths=[168, 448, 896, 2016], depths=[2, 4, 10, 1], group=56, head=[2016, 4096, 4096, 256]),
}
PROTOTYPES, TEMPERATURE, EPSILON, SINKHORN_ITERATIONS = 3000, 0.1, 0.05, 10
LARGE, SMALL, ASSIGNED = (2, 224), (4, 96), (0, 1)


def torch_worker(name, images, memory_format, threads, updates, warmup):
    """One round in this process: milliseconds of each phase of the measured updates."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torchvision.models.regnet import BlockParams, RegNet

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    m = MODELS[name]
    trunk = RegNet(BlockParams(depths=m["depths"], widths=m["widths"], group_widths=[m["group"]] * 4,
                               bottleneck_multipliers=[1.0] * 4, strides=[2] * 4, se_ratio=0.25))
    trunk.fc = nn.Identity()
    layers = []
    for a, b in zip(m["head"][:-1], m["head"][1:]):
        layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
    head, prototypes = nn.Sequential(*layers[:-1]), nn.Linear(m["head"][-1], PROTOTYPES, bias=False)
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    trunk.to(memory_format=layout).train()
    crops = [torch.randn(n * images, 3, size, size).to(memory_format=layout) for n, size in (LARGE, SMALL)]
    parameters = list(trunk.parameters()) + list(head.parameters()) + list(prototypes.parameters())
    momenta = [torch.zeros_like(p) for p in parameters]
    lr, momentum, weight_decay, trust = 0.1, 0.9, 1e-5, 1e-3
    crop_count = LARGE[0] + SMALL[0]

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
        z = F.normalize(head(torch.cat([trunk(x) for x in crops])), dim=1)
        scores = prototypes(z)
        logp = F.log_softmax(scores / TEMPERATURE, dim=1).view(crop_count, images, -1)
        total = logp.sum(dim=0)
        loss = 0.0
        for a in ASSIGNED:  # all crops but a, together
            loss = loss - (codes(scores[a * images:(a + 1) * images].detach()) * (total - logp[a])).sum()
        return loss / (images * (crop_count - 1) * len(ASSIGNED))

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
        t1 = time.perf_counter()
        loss.backward()
        t2 = time.perf_counter()
        lars()
        t3 = time.perf_counter()
        if update >= warmup:
            for key, ms in zip(phases, (t1 - t0, t2 - t1, t3 - t2)):
                phases[key].append(1e3 * ms)
    cpu = 1e3 * (time.process_time() - cpu) / updates  # of all threads: tells on a machine that is not quiet
    steps = [sum(x) for x in zip(*phases.values())]
    out = {key + "_ms": statistics.median(ms) for key, ms in phases.items()}
    return dict(out, step_ms=statistics.median(steps), cpu_ms=cpu, loss=loss.item(), torch=torch.__version__)


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
                "--threads", str(args.threads), "--updates", str(args.updates), "--warmup", str(args.warmup)],
               {"OMP_NUM_THREADS": str(args.threads)})


def run_seer(args, name, images):
    threads = args.threads // args.seer_ranks
    command = [args.seer, "bench", "step", os.path.join(HERE, "..", "inputs", f"bench_{name}.toml"),
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
    ap.add_argument("--json", metavar="FILE", help="write all figures there as well")
    ap.add_argument("--worker", nargs=3, metavar=("MODEL", "IMAGES", "FORMAT"), help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.worker:
        name, images, memory_format = args.worker
        print(json.dumps(torch_worker(name, int(images), memory_format, args.threads, args.updates, args.warmup)))
        return
    if args.threads % args.seer_ranks:
        sys.exit(f"--seer-ranks {args.seer_ranks} does not divide --threads {args.threads}")

    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load average {load:.1f} before the start: other programs share the cores, and the ratio means "
              "little; repeat on a quiet machine", file=sys.stderr, flush=True)
    report = []
    for case in args.cases.split(","):
        name, images = case.split(":")[0], int(case.split(":")[1])
        rounds = {"contiguous": [], "channels_last": [], "seer": []}
        for r in range(args.rounds):
            for kind in rounds:
                if kind == "seer" and args.torch_only:
                    continue
                out = run_seer(args, name, images) if kind == "seer" else run_torch(args, name, images, kind)
                rounds[kind].append(out)
                print(f"{case} round {r + 1}: {kind:13s} {out['step_ms']:9.1f} ms", file=sys.stderr, flush=True)

        def median(kind, key="step_ms"):
            return statistics.median(o[key] for o in rounds[kind])

        version = rounds["contiguous"][0]["torch"]
        print(f"\nRegNetY {name}, {images} images an update, 2x224 + 4x96 crops, fp32, {args.threads} threads")
        print(f"{'':30s} {'step ms':>9s} {'images/s':>9s} {'forward':>9s} {'backward':>9s} {'optimizer':>9s}")
        for kind in ("contiguous", "channels_last"):
            phases = " ".join(f"{median(kind, p + '_ms'):9.1f}" for p in ("forward", "backward", "optimizer"))
            name_of = f"PyTorch {version.split('+')[0]} {kind}"
            print(f"{name_of:30s} {median(kind):9.1f} {1e3 * images / median(kind):9.3f} {phases}")
        best = min(("contiguous", "channels_last"), key=median)
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
