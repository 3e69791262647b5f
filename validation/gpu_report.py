# SPDX-License-Identifier: Apache-2.0
"""Writes what validation/gpu.sh has gathered as Markdown: gpu_report.py WORK OUT.md SECONDS. Every figure comes from a
file in WORK; a part without its file is named with what came of it."""
import csv
import json
import os
import re
import statistics
import sys

work, out, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3])


def read(name):
    try:
        with open(os.path.join(work, name), errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def read_json(name):
    """The JSON that a file holds, or its last line that is some; None where there is none."""
    text = read(name)
    for piece in [text] + text.splitlines()[::-1]:
        try:
            value = json.loads(piece)
            if isinstance(value, (dict, list)):
                return value
        except json.JSONDecodeError:
            pass
    return None


def rows_of(name, columns):
    """Lines of so many columns: what is missing is empty, and tabs behind the last are part of it."""
    for line in read(name).splitlines():
        cells = line.split("\t", columns - 1)
        yield cells + [""] * (columns - len(cells))


facts = {name: value for name, value in rows_of("facts.tsv", 2)}
items = [[cell.replace("\t", " ") for cell in row] for row in rows_of("items.tsv", 5)]
images = {model: int(n or 0) for model, n in rows_of("images.tsv", 2)}
host, models = facts["host"] == "1", facts["models"].split()
lines = []


def say(text=""):
    lines.append(text)


def table(head, rows):
    say("| " + " | ".join(head) + " |")
    say("| --- |" + " --: |" * (len(head) - 1))
    for row in rows:
        say("| " + " | ".join(str(c).replace("|", "/") for c in row) + " |")
    say()


def outcome(part):
    """What became of a part's items that were not ok."""
    for _, name, result, took, why in (i for i in items if i[0] == part and i[2] != "ok"):
        say(f"- {name}: **{result}**" + (f": {why}" if why else "") + (f" ({took} s)" if took != "0" else ""))
    say()


def head():
    if host:
        say("# Rehearsal of validation/gpu.sh on the host: no figure here is of a device")
        say()
        say("The script that measures devices, run on the stand-in for one, which computes on the host, with small crops and "
            "models, so that it is known to work. Its speeds are those of two ordinary cores that others used as well.")
    else:
        say(f"# {facts['device_name']}")
    say()
    say(f"`validation/gpu.sh{' --host' if host else ''}`: {seconds} s of {facts['budget']} s. {facts['device_name']}"
        + (f", driver, clock and power limit {facts['driver']}" if facts.get("driver") else "")
        + f"; {facts['version']}; precision {facts['precision']}; peaks: {facts['machine'] or 'measured in the run'}.")
    say()
    table(["part", "item", "outcome", "s", "why"], [[p, n, o, s, w] for p, n, o, s, w in items])


def tests():
    """From ctest -V: each line has its test's number before it; several run at once."""
    say("## Tests")
    say()
    names, cases, open_case, why = {}, {}, {}, {}
    for raw in read("tests.log").splitlines():
        if started := re.match(r"\s*Start\s+(\d+): (\S+)", raw):
            names[started[1]] = started[2]
            continue
        found = re.match(r"(\d+): ?(.*)$", raw)
        if not found:
            continue
        number, text = found.groups()
        if run := re.match(r"\[ RUN      \] (\S+)", text):
            open_case[number], why[number] = run[1], ""
            cases[number, run[1]] = ("did not end", "")
        elif "not run: " in text and number in open_case:
            why[number] = text.split("not run: ", 1)[1]
        elif end := re.match(r"\[ +(OK|FAILED|SKIPPED) +\] (\S+?),? .*\(\d+ ms\)", text):
            state = {"OK": "passed", "FAILED": "failed", "SKIPPED": "not run"}[end[1]]
            cases[number, end[2]] = (state, why.get(number, "") if state == "not run" else "")
            open_case.pop(number, None)
    if not names:
        outcome("tests")
        return
    ended = dict(re.findall(r"Test\s+#\d+: (\S+) \.+\s*\**(Passed|Failed|Timeout|Exception|Skipped|Not Run)",
                            read("tests.log")))
    states = ("passed", "failed", "not run", "did not end")
    rows = []
    for number, name in sorted(names.items(), key=lambda x: x[1]):
        mine = [state for (n, _), (state, _) in cases.items() if n == number]
        rows.append([name, ended.get(name, "did not end")] + [mine.count(s) for s in states])
    rows.append(["all", ""] + [sum(r[2 + i] for r in rows) for i in range(4)])
    table(["executable", "ended", *states], rows)
    never = [n for n in read("tests.txt").split() if n not in names.values()]
    if never:
        say(f"Not started, for the time had run out: {', '.join(never)}.")
        say()
    for state in ("failed", "did not end", "not run"):
        grouped = {}
        for (number, case), (found, reason) in cases.items():
            if found == state:
                short = re.sub(r"/[^/.]*$", "", case)  # the parameter of a test that has many
                grouped.setdefault((names.get(number, number), reason), {}).setdefault(short, []).append(case)
        for (name, reason), shorts in grouped.items():
            listed = ", ".join(s + (f" ({len(c)} cases)" if len(c) > 1 else "") for s, c in shorts.items())
            say(f"- {state}, {name}{': ' + reason if reason else ''}: {listed}")
    say()


def sanitizer():
    say("## compute-sanitizer")
    say()
    for name in ("memcheck_device", "memcheck_kernels", "racecheck_kernels"):
        summary = re.findall(r"=+ (ERROR SUMMARY.*|RACECHECK SUMMARY.*)", read(name + ".log"))
        if summary:
            passed = re.findall(r"\[  PASSED  \] (\d+) tests?", read(name + ".log"))
            say(f"- {name}: {summary[-1]}; {passed[-1] if passed else 0} tests passed")
    outcome("sanitizer")


DIRECTIONS = ("forward", "backward_data", "backward_weights")


def conv():
    say("## Convolutions")
    say()
    say("Of one update: ms of all calls of a shape, its rate, GB/s by the tensors' bytes, share of the peak, and roof: the time "
        "that peak and memory allow at best over the measured one (a dash: not known).")
    say()
    unit, scale = ("GFLOP/s", 1) if host else ("TFLOP/s", 1e-3)
    for model in models:
        found = read_json(f"conv.{model}.json")
        if not found:
            continue
        peak, memory = found["peak_gflop_per_s"], found["peak_gb_per_s"]
        say(f"### {model}, {images[model]} images, {found['precision']}")
        say()
        say(f"{found['library']}; yardstick: {found['yardstick']}, {peak * scale:.1f} {unit}"
            + (f", {memory:.0f} GB/s" if memory else "") + ".")
        say()
        rows = []
        for layer in found["layers"]:
            row = [layer["name"], f"{layer['height']}²", layer["count"]]
            for d in DIRECTIONS:
                if d + "_ms" not in layer:
                    row += ["-"] * 5
                    continue
                ms = layer[d + "_ms"]
                row += [f"{ms * layer['count']:.3f}", f"{layer[d + '_gflop_per_s'] * scale:.1f}",
                        f"{layer[d + '_gb_per_s']:.0f}", f"{layer[d + '_share']:.2f}",
                        f"{layer[d + '_roof_ms'] / ms:.2f}" if memory else "-"]
            rows.append(row)
        total, row = found["total"], ["**all**", "", ""]
        for d in DIRECTIONS:
            if d + "_ms" not in total:
                row += ["-"] * 5
                continue
            ms, rate = total[d + "_ms"], total[d + "_gflop_per_s"]
            row += [f"{ms:.3f}", f"{rate * scale:.1f}", f"{1e3 * total[d + '_gb'] / ms:.0f}", f"{rate / peak:.2f}",
                    f"{total[d + '_roof_ms'] / ms:.2f}" if memory else "-"]
        rows.append(row)
        columns = [f"{short} {c}" for short in ("fwd", "data", "weights") for c in ("ms", unit, "GB/s", "share", "roof")]
        table(["convolution", "at", "times", *columns], rows)
        if "all_ms" in total:
            say(f"All three directions: {total['all_ms']:.1f} ms, {total['all_gflop_per_s'] / peak:.3f} of the peak.")
        if found.get("not_measured"):
            say(f"**Not measured, for the time was over: {found['not_measured']} of the layers' directions.** The total is of "
                "the others.")
        say()
    outcome("conv")


TORCH = (("eager", "torch"), ("compiled", "torch_compiled"))
PHASES = ("data_wait", "forward", "bn_sync", "loss", "backward", "reduce", "optimizer", "gather", "other")


def steps():
    """Whole updates, PyTorch, and what bounds them."""
    say("## Whole updates")
    say()
    rows, bounds = [], []
    for model in models:
        step = read_json(f"step.{model}.json")
        ways = [(t[0]["torch_images_per_s"], how) for how, t in (
            (how, read_json(f"{file}.{model}.json")) for how, file in TORCH) if t]
        torch, torch_way = max(ways, default=(0, ""))
        found = read_json(f"conv.{model}.json")
        if not step and not torch:
            continue
        row = [model, images[model]]
        ms = step["step_ms"] if step else None
        row += [f"{ms:.1f}", f"{step['images_per_s']:.2f}"] if step else ["-", "-"]
        on_device = not host and step and step["space"] == "device"
        share = "-"
        if step and found and found["total"].get("all_gflop") and not found.get("not_measured"):
            share = f"{1e3 * found['total']['all_gflop'] / ms / found['peak_gflop_per_s']:.3f}"
        if step and step.get("peak_share"):
            share = f"{step['peak_share']:.3f}"
        row += [share, f"{(step['device_bytes'] or step['peak_rank_bytes']) / 2**30:.1f}" if step else "-"]
        row += [", ".join(f"{how} {rate:.2f}" for rate, how in ways) or "-",
                f"{step['images_per_s'] / torch:.2f} ({torch_way})" if torch and step else "-"]
        rows.append(row)
        if step and not host and not on_device:
            bounds.append(f"- {model}: **seer's update ran on the host back end, not on the device**: its figures, share and "
                          "ratio are of the host.")
        if step and found and found["total"].get("all_ms") and not found.get("not_measured"):
            part = found["total"]["all_ms"] / ms
            phases = sorted(((step.get(p + "_ms", 0), p) for p in PHASES), reverse=True)
            bound = ("convolutions" if part > 0.5 else "what is not convolution: passes over memory, products of the head, "
                     "the optimizer, launches")
            bounds.append(f"- {model}: of {ms:.1f} ms an update, convolutions measured alone take {found['total']['all_ms']:.1f} "
                          f"ms ({100 * part:.0f} %), of which the roof explains {found['total']['all_roof_ms']:.1f} ms; "
                          f"bound by {bound}. Largest phases: "
                          + ", ".join(f"{p} {t:.1f} ms ({100 * t / ms:.0f} %)" for t, p in phases[:3]) + ".")
    if rows:
        table(["model", "images", "seer ms", "seer images/s", "share of peak", "GiB", "PyTorch images/s", "seer / PyTorch"],
              rows)
        say("Share of the peak: the model's arithmetic (where the peak was measured: that of the trunk's convolutions) over the "
            "whole update's time; nothing is recomputed. GiB: of the device.")
        version = next((t[0]["torch"] for t in (read_json(f"{file}.{m}.json") for m in models for _, file in TORCH) if t), None)
        if version:
            say(f"PyTorch {version}: autocast to bf16, channels_last, eager or torch.compile of every block, LARS by "
                "torch._foreach; the ratio is to its faster one.")
        say()
    phases = [[m, *(f"{s.get(p + '_ms', 0):.1f}" for p in PHASES)] for m, s in
              ((m, read_json(f"step.{m}.json")) for m in models) if s]
    if phases:
        say("Phases, ms of an update (mean of ranks):")
        say()
        table(["model", *PHASES], phases)
    for part in ("plan", "step", "torch"):
        outcome(part)
    say("## What bounds the update")
    say()
    lines.extend(bounds or ["Not known: it needs `bench conv` and `bench step` of one model."])
    say()


def data():
    """Of a short run from shards: what the update waited for its batch."""
    say("## Waiting for data")
    say()
    rows = [json.loads(line) for line in read("run/metrics.jsonl").splitlines()
            if '"update"' in line and line.endswith("}")]  # a run that ran out of its time may leave half a line
    rows = rows[len(rows) // 4:]  # the first make primitives and engines
    if rows:
        step, wait = (statistics.median(r[key] for r in rows) for key in ("step_ms", "data_wait_ms"))
        total = sum(r["data_wait_ms"] for r in rows) / sum(r["step_ms"] for r in rows)
        say(f"{len(rows)} updates of a run from HDF5 shards of made-up photos: step {step:.1f} ms, waiting for data {wait:.2f} ms "
            f"(medians); {100 * total:.2f} % of all their time.")
        say()
    outcome("data")


def comm():
    say("## Collectives")
    say()
    found = read_json("comm.json")
    if found:
        key = "in_a_row_ms" if "in_a_row_ms" in found["results"][0] else "ms"
        table(["call", "bytes", "ms", "GB/s"], [[r["call"], r["bytes"], f"{r[key]:.4f}", f"{r['gb_per_s']:.2f}"]
                                               for r in found["results"]])
    outcome("comm")


def profile():
    say("## Profile")
    say()
    rows = []
    if read("kernels.csv"):
        text = read("kernels.csv").splitlines()
        first = next((i for i, line in enumerate(text) if line.startswith("Time (%)")), None)
        for r in csv.DictReader(text[first:]) if first is not None else []:
            name = r.get("Name", "")
            rows.append([name if len(name) < 90 else name[:87] + "...", r["Instances"],
                         f"{float(r['Total Time (ns)']) * 1e-6:.2f}", f"{r['Time (%)']} %"])
        say(f"Kernels of {models[0]}, six updates with the set-up (Nsight Systems):")
    else:
        for line in read("kernels.txt").splitlines():
            cells = [c.strip() for c in line.strip().strip("|").split("|")]
            if line.startswith("|") and len(cells) == 4 and cells[0] not in ("what", "---"):
                rows.append([cells[0], cells[1], f"{1e3 * float(cells[2]):.1f}", cells[3]])
        if rows:
            say(f"Kernels and library calls of {models[0]}, six updates (validation/kernel_times.cpp):")
    if rows:
        say()
        table(["what", "calls", "ms in all", "share"], rows[:20])
    kernels = {}
    text = [line for line in read("ncu.csv").splitlines() if line.startswith('"')]
    for r in csv.DictReader(text):
        kernels.setdefault((r["ID"], r["Kernel Name"]), {})[r["Metric Name"]] = f"{r['Metric Value']} {r['Metric Unit']}"
    if kernels:
        wanted = ("Duration", "Memory Throughput", "DRAM Throughput", "Registers Per Thread", "Achieved Occupancy")
        say(f"Some kernels of {models[0]} (Nsight Compute):")
        say()
        table(["kernel", *wanted], [[name[-90:], *(found.get(w, "-") for w in wanted)]
                                    for (_, name), found in kernels.items()])
    outcome("profile")


# A file that holds something else than was expected costs its section, not the others.
broken = False
for section in (head, tests, sanitizer, conv, steps, data, comm, profile):
    before = len(lines)
    try:
        section()
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        broken = True
        del lines[before:]
        say(f"## {section.__name__}")
        say()
        say(f"**Not written**, for a file of {work} is not as expected: {error!r}")
        say()
        print(f"gpu_report: section {section.__name__}: {error!r}", file=sys.stderr)
text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"
with open(out, "w") as f:
    f.write(text)
sys.exit(broken)
