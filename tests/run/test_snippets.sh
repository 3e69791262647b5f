#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every Python block of README.md and docs/*.md runs unchanged on the files it names, in the order of its page. Blocks
# that need a missing Python module are only parsed, and listed. The commands of README make the files.
. "$(dirname "$0")/common.sh"
needs_kernels
root=$(cd "$SEER_TEST_DATA/../.." && pwd)

expect 0 'accepted' seer pack "$SEER_TEST_DATA/images" -o shards --labels none
sed -e 's|^shards = .*|shards = "shards"|' -e 's|^run_dir = .*|run_dir = "runs/photos"|' "$root/inputs/demo.toml" >photos.toml
short=(--set data.global_batch=8 --set schedule.total_updates=1 --set schedule.warmup_updates=0 --set log.every=1)
expect 0 'runs/photos' seer pretrain photos.toml "${short[@]}" --set parallel.device=host
expect 0 'features' seer features runs/photos shards -o features.h5 --resize 96 --crop 96 --device host
expect 0 'photos.safetensors' seer export runs/photos photos.safetensors
sed -n '/^import safetensors/,$p' out.txt | sed '/^$/,$d' >printed.py
expect 0 'weights.h5' seer import photos.safetensors weights.h5
mkdir runs/demo && ln -s ../photos runs/demo/run && ln -s update-00000001 runs/photos/checkpoints/update-00000600

cat >blocks.py <<'PY'
import ast, glob, importlib, os, re, sys
root, ran, parsed = sys.argv[1], 0, []
printed = open("printed.py").read()
os.environ["MPLBACKEND"] = "Agg"

def missing(tree, imports):
    """Modules that this block needs and python3 lacks: imported in it, or further up its page under a name it uses."""
    needed = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            needed |= {a.name for a in node.names}
            imports |= {(a.asname or a.name).split(".")[0]: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            needed.add(node.module)
            imports |= {a.asname or a.name: node.module for a in node.names}
    needed |= {imports[n.id] for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in imports}
    out = set()
    for module in needed:
        try:
            importlib.import_module(module)
        except ImportError:
            out.add(module.split(".")[0])
    return sorted(out)

same = 0
for page in [os.path.join(root, "README.md")] + sorted(glob.glob(os.path.join(root, "docs", "*.md"))):
    text, space, imports = open(page, encoding="utf-8").read(), {"__name__": "block"}, {}
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        place = f"{os.path.relpath(page, root)}:{text[: found.start()].count(chr(10)) + 2}"
        code = found[1]
        tree = ast.parse(code, place)
        same += code == printed
        if lacks := missing(tree, imports):
            parsed.append(f"{place} (no {', '.join(lacks)})")
            continue
        if "in enumerate(crops)" in code:  # "list of arrays" is what the reader brings
            import numpy
            space["crops"] = [numpy.zeros((2, 3, 8, 8)), numpy.zeros((2, 3, 4, 4))]
        try:
            exec(compile(code, place, "exec"), space)
        except Exception as error:
            sys.exit(f"FAILED: {place}: {type(error).__name__}: {error}")
        ran += 1
print(f"snippets: {ran + len(parsed)} blocks, {ran} run, {len(parsed)} parsed only" + "".join("\n  " + p for p in parsed))
if ran + len(parsed) < 9:
    sys.exit("FAILED: blocks are missing: is it still ```python?")
if same != 1:
    sys.exit(f"FAILED: README does not show what export prints for demo.toml's network:\n{printed}")
PY
python3 blocks.py "$root"

# The smallest useful configuration of the page trains; the test changes only folders and length.
sed -n '/^## The smallest useful file/,/^## What/p' "$root/docs/configuration.md" | sed -n '/^```toml/,/^```/p' | sed '/^```/d' >smallest.toml
grep -q '^\[model\]' smallest.toml || fail "docs/configuration.md: no smallest useful file"
expect 0 'runs/smallest' seer pretrain smallest.toml --set data.shards=shards --set log.run_dir=runs/smallest \
  --set data.global_batch=4 --set schedule.epochs=0 --set schedule.total_updates=1 --set schedule.warmup_updates=0 \
  --set parallel.bn_group_size=1 --set parallel.device=host
expect 0 'from_init_params(depth=13, w_0=24, w_a=36.44, w_m=2.49, group_width=8, se_ratio=0.25)' \
  seer export runs/smallest smallest.safetensors
