# SPDX-License-Identifier: Apache-2.0
"""What validation/rehearsal.sh ran, compared and printed as Markdown; exit code 1 if anything is not as it should be.

usage: rehearsal.py FOLDER R..."""
import json
import pathlib
import sys

MODES = ["none", "optimizer", "gradients", "parameters", "parameters_in_groups"]
TOLERANCE = 1e-3  # of a loss: see rehearsal.sh
GROWTH = 8 << 20  # bytes a rank may need more on more ranks
PROTOTYPES = 16  # inputs/tiny.toml


def metrics(folder):
    return {row["update"]: row for row in map(json.loads, open(folder / "metrics.jsonl"))}


def largest_difference(rows, wanted):
    assert rows and set(rows) <= set(wanted), f"updates {sorted(rows)}, wanted among {sorted(wanted)}"
    return max(abs(rows[u]["loss"] - wanted[u]["loss"]) / abs(wanted[u]["loss"]) for u in rows)


def key(row):
    return row["name"], row["kind"], row["group_size"]


def traffic(folder, plan_file):
    """(collective) -> [calls, bytes of the run; calls, bytes of the plan], sums over all updates of the run."""
    run = json.load(open(folder / "traffic.json"))
    plan = json.load(open(plan_file))
    table = {}
    for row in run["traffic"]:
        if row["use"] == "update":
            table[key(row)] = [row["calls"], row["bytes"], 0, 0]
    for row in plan["traffic"]:
        sums = table.setdefault(key(row), [0, 0, 0, 0])
        sums[2] += row["calls"] * run["updates"]
        sums[3] += row["bytes"] * run["updates"]
    # What a logged update sends in addition (docs/formats.md, traffic.json); the plan is of one that is not logged.
    world = table[("world", "all_reduce", run["ranks"])]
    world[2] += run["logged_updates"]
    world[3] += run["logged_updates"] * (16 + 8 * PROTOTYPES)
    return run, table


def modes_of(folder):
    """Those that were run (MODES of rehearsal.sh); a run that failed ended the script."""
    found = [mode for mode in MODES if (folder / f"{mode}.plan.json").exists()]
    assert found, f"{folder}: nothing was run"
    return found


def main():
    out, sizes = pathlib.Path(sys.argv[1]), [int(r) for r in sys.argv[2:]]
    wrong = []
    peaks = {}
    print("| ranks | sharding | start and 10 updates, s | update, median, ms | loss 1 .. 10 | largest difference from the "
          "reference | largest rank, MB |\n| --- | --- | --- | --- | --- | --- | --- |")
    for r in sizes:
        here = out / str(r)
        wanted = metrics(here / "reference")
        if sorted(wanted) != list(range(1, 11)):
            wrong.append(f"{r}: reference has updates {sorted(wanted)}")
        for name in ["reference", *modes_of(here), "restart"]:
            rows = metrics(here / name)
            first, last = min(rows), max(rows)
            expected = range(6 if name == "restart" else 1, 11)
            if sorted(rows) != list(expected):
                wrong.append(f"{r} {name}: updates {sorted(rows)}")
            difference = largest_difference(rows, wanted)
            if name == "restart":
                again = largest_difference(rows, metrics(here / modes_of(here)[-1]))
                if again > TOLERANCE:
                    wrong.append(f"{r} restart: losses differ by {again:.1e} from the run it goes on with")
            if difference > TOLERANCE:
                wrong.append(f"{r} {name}: losses differ by {difference:.1e}")
            peak = max(row["host_bytes"] for row in rows.values())
            if name in MODES:
                peaks.setdefault(name, {})[r] = peak
            step = sorted(row["step_ms"] for row in rows.values())[len(rows) // 2]
            ranks = {"reference": max(1, r // 64), "restart": r // 2}.get(name, r)
            label = {"restart": f"restart of {r} at update 5, optimizer", "reference": f"reference for {r}"}.get(name, name)
            seconds = (here / f"{name}.seconds").read_text().strip()
            print(f"| {ranks} | {label.replace('_', ' ')} | {seconds} | {step:.0f} | {rows[first]['loss']:.5f} .. "
                  f"{rows[last]['loss']:.5f} | {difference:.1e} | {peak / 1e6:.1f} |")
        print(f"| | restart against the run it goes on with | | | | {again:.1e} | |")

    print("\nCollectives of an update as counted by rank 0 (what the ten logged updates sent for their metrics taken off) and "
          "as planned:\n\n| ranks | sharding | among | kind | ranks in it | calls, run | calls, plan | bytes, run | bytes, "
          "plan | |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in sizes:
        for mode in modes_of(out / str(r)):
            run, table = traffic(out / str(r) / mode, out / str(r) / f"{mode}.plan.json")
            updates, logged = run["updates"], run["logged_updates"]
            if run["ranks"] != r or updates != 10 or logged != 10:
                wrong.append(f"{r} {mode}: traffic.json of {run['ranks']} ranks, {updates} updates, {logged} logged")
            for (name, kind, members), sums in sorted(table.items()):
                same = sums[:2] == sums[2:]
                if not same:
                    wrong.append(f"{r} {mode}: {name} {kind} {members}: calls, bytes {sums[:2]} in all, planned {sums[2:]}")
                extra = (logged, logged * (16 + 8 * PROTOTYPES)) if (name, kind) == ("world", "all_reduce") else (0, 0)
                calls = [(sums[i] - extra[0]) / updates for i in (0, 2)]
                sent = [(sums[i] - extra[1]) / updates for i in (1, 3)]
                print(f"| {r} | {mode.replace('_', ' ')} | {name} | {kind} | {members} | {calls[0]:g} | {calls[1]:g} | "
                      f"{sent[0]:.10g} | {sent[1]:.10g} | {'same' if same else '**differs**'} |")

    many = [r for r in sizes if r >= 64]
    if len(many) > 1:  # below 64, a rank has more than one image
        low, high = min(many), max(many)
        print(f"\nMemory of the largest rank, {high} ranks against {low}: ")
        for mode in [m for m in MODES if {low, high} <= set(peaks.get(m, {}))]:
            growth = peaks[mode][high] - peaks[mode][low]
            print(f"{mode.replace('_', ' ')} {growth / 1e6:+.1f} MB")
            if growth > GROWTH:
                wrong.append(f"{mode}: the largest rank grows by {growth / 1e6:.1f} MB from {low} to {high} ranks")
    print("\n" + ("\n".join("WRONG: " + w for w in wrong) or "All as it should be."))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
