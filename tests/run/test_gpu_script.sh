#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# validation/gpu.sh --host, without measurements. If some tests and commands of a build fail, it still writes the report,
# which names them, and ends with exit code 1. It refuses wrong arguments in one line before it starts.
. "$(dirname "$0")/common.sh"
root=$(cd "$SEER_TEST_DATA/../.." && pwd)

# A build folder with tests, and a program that knows the models, prints unusual text and measures nothing.
mkdir build results
cat >build/seer <<SH
#!/bin/bash
case "\$*" in
  --version) echo "seer of this test" ;;
  "bench conv --plan"*) exec "$SEER_EXECUTABLE" "\$@" ;;
  "bench step"*) printf '\033[31merror: rank 0/1 on here:\tno\001 such thing\033[0m\nthe launcher had more to say\n' >&2; exit 4 ;;
esac
SH
chmod +x build/seer
cat >build/CTestTestfile.cmake <<'CMAKE'
add_test(unit.good "true")
add_test(unit.bad "bash" "-c" "echo the end of a bad test; exit 3")
add_test(run.other "false")
CMAKE

gpu() {
  SEER=$scratch/${GPU_SEER:-build/seer} WORK=$scratch/kept PYTHON=$scratch/no/python "$root/validation/gpu.sh" "$@" </dev/null
}
refused() {  # PIECE ARGUMENTS...: expects one line with PIECE, exit code 2, and that nothing was started
  local piece=$1 rc=0
  shift
  gpu "$@" >refused.txt 2>&1 || rc=$?
  [ "$rc" = 2 ] || { cat refused.txt; fail "exit code $rc, wanted 2: gpu.sh $*"; }
  [ "$(wc -l <refused.txt)" = 1 ] && grep -qF -- "$piece" refused.txt || { cat refused.txt; fail "no \"$piece\": gpu.sh $*"; }
  [ ! -e kept ] || fail "something was begun: gpu.sh $*"
}
for option in --models --parts --budget --out; do
  refused "$option wants a value" --host "$option"
  refused "$option wants a value" "$option" --host
done
refused "--budget 5s" --host --budget 5s
refused "no part dnn; there are tests," --host --parts tests,dnn
refused '"nosuch" is not known; known: tiny' --host --models 8gf,nosuch
refused "--out $scratch/nowhere/report.md" --host --out "$scratch/nowhere/report.md"
GPU_SEER=nowhere/seer refused "no executable $scratch/nowhere/seer" --host
grep -q "SEER: the executable" < <(cd "$root/validation" && ./gpu.sh --help) || fail "--help from another folder"
for script in build_device.sh device_bundle.sh run_there.sh test.sh; do
  grep -q "^ *\(scripts/\)\?$script " < <(cd "$root/scripts" && ./$script --help) || fail "$script --help from another folder"
done
echo "ok: refused"

for start in 1 2; do
  rc=0
  gpu --host --models 400mf --budget 60 --out "$scratch/results/report.md" >gpu.txt 2>&1 || rc=$?
  [ "$rc" = 1 ] || { cat gpu.txt; fail "start $start: exit code $rc, wanted 1"; }
  grep -qF '| tests | all tests | failed |' results/report.md && grep -qF 'failed: unit.bad (Failed)' results/report.md ||
    { cat gpu.txt results/report.md; fail "start $start: the report does not name the failed test"; }
  grep -qF '| unit.bad | Failed |' results/report.md && grep -qF '| unit.good | Passed |' results/report.md ||
    { cat results/report.md; fail "the tests are not listed"; }
  ! grep -q run.other results/report.md || fail "an end-to-end test was started"
  grep -qF '| exit code 4: error: rank 0/1 on here: no such thing |' results/report.md ||
    { cat results/report.md; fail "the reason of bench step"; }
done
[ -e kept/parts/reported ] && [ -e kept/parts.before/reported ] || fail "the first start's files are not kept"
[ "$(realpath kept/parts/run/cache)" = "$scratch/kept/cache" ] || fail "the short run does not find the engines"

# Only some parts, tests without a list of ctest's, and a stop by a signal.
mkdir -p listless/tests
cp build/seer listless/
printf '#!/bin/sh\necho "[ RUN      ] A.B"; echo "[       OK ] A.B (1 ms)"\n' >listless/tests/test_good
printf '#!/bin/sh\necho "[ RUN      ] A.C"; sleep 60\n' >listless/tests/test_hangs
chmod +x listless/tests/*
SEER=$scratch/listless/seer WORK=$scratch/kept "$root/validation/gpu.sh" --host --parts tests --models 400mf --budget 60 \
  --out "$scratch/results/stopped.md" >stopped.txt 2>&1 </dev/null &
started=$!
for _ in {1..200}; do grep -q A.C kept/parts/tests.log 2>/dev/null && break || sleep 0.1; done
kill $started
rc=0
wait $started || rc=$?
[ "$rc" = 1 ] && grep -qF 'stopped by a signal' results/stopped.md && grep -qF '| test_good | Passed | 1 |' results/stopped.md &&
  grep -qF 'did not end, test_hangs: A.C' results/stopped.md && ! grep -q '| step |' results/stopped.md ||
  { cat stopped.txt results/stopped.md; fail "exit code $rc: stopped"; }
echo "ok: stopped"

# Unexpected lines do not harm the report.
printf 'odd\nstep\tmore\tfailed\t1\twhy\tand\tmore\n' >>kept/parts/items.tsv
printf '{"in_a_row_ms": 1}' >kept/parts/comm.json
rc=0
python3 "$root/validation/gpu_report.py" kept/parts results/odd.md 1 >odd.txt 2>&1 || rc=$?
[ "$rc" = 1 ] && grep -qF "section comm: KeyError" odd.txt && grep -qF '| step | more | failed | 1 | why and more |' results/odd.md &&
  grep -qF '## Profile' results/odd.md || { cat odd.txt results/odd.md; fail "odd lines"; }
echo "ok: reports"
