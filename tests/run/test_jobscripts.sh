#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The job scripts, without Slurm: their #SBATCH lines, the files that they name, and requeueing. Replaces srun and
# scontrol by scripts.
. "$(dirname "$0")/common.sh"
root=$(cd "$SEER_TEST_DATA/../.." && pwd)

# has SCRIPT TEXT: an #SBATCH line that is exactly that.
has() { grep -qxF "#SBATCH $2" "$1" || fail "${1##*/}: no \"#SBATCH $2\""; }
value() { sed -n "s/^#SBATCH --$2=//p" "$1"; }

for script in "$root"/jobscripts/*.sh; do
  name=${script##*/}
  bash -n "$script" || fail "$name: bash cannot read it"
  # All configurations that a script names, also in its examples, exist.
  for config in $(grep -oE 'inputs/[A-Za-z0-9_/]+\.toml' "$script" | sort -u); do
    [ -f "$root/$config" ] || fail "$name names $config, which does not exist"
  done
  [ "$name" = common.sh ] && continue
  has "$script" "--signal=B:USR1@300"
  has "$script" "--requeue"
  has "$script" "--open-mode=append"
  for key in nodes ntasks-per-node cpus-per-task time output; do
    [ -n "$(value "$script" "$key")" ] || fail "$name: no #SBATCH --$key"
  done
  # Slurm stops reading at the first command: a directive below it is ignored without a word.
  awk '/^#SBATCH/ && code { exit 1 } /^[^#]/ { code = 1 }' "$script" || fail "$name: #SBATCH below a command"
  ! grep -qE '^#SBATCH --gpus-per-task=[a-z]' "$script" || fail "$name: a typed --gpus-per-task hides all devices"
  echo "ok: $name"
done

# Ranks: what the name says; and as many devices a node as ranks.
shape() {  # SCRIPT RANKS NODES
  local script=$root/jobscripts/$1 nodes tasks
  nodes=$(value "$script" nodes) tasks=$(value "$script" ntasks-per-node)
  [ $((nodes * tasks)) = "$2" ] || fail "$1: $nodes x $tasks ranks, wanted $2"
  [ "$nodes" = "$3" ] || fail "$1: $nodes nodes, wanted $3"
  [ "$(value "$script" gpus-per-node)" = "$tasks" ] || fail "$1: not one device a rank"
}
shape seer_512gpu.sh 512 64
shape seer_64gpu.sh 64 8
shape seer_1node.sh 8 1

# Stand-ins for two commands of Slurm. A first start gets exit code 75 and asks for a requeue; a second start resumes and
# gets 0.
mkdir bin
cat >bin/scontrol <<SH
#!/bin/bash
case "\$1 \$2" in
  "show hostnames") tr , '\n' <<<"\$3" ;;
  "show "*) echo "   ExcNodeList=old"; echo "   Command=$root/jobscripts/\$JOB_SCRIPT a.toml" ;;
  requeue*) echo "requeue \$2" >>"$scratch/calls" ;;
  update*) echo "update \$2 \$3" >>"$scratch/calls" ;;
esac
SH
cat >bin/srun <<'SH'
#!/bin/bash
if [[ "$*" == *node_health* ]]; then  # the check before the start: really done here, once for each node
  while [[ "$1" == --* ]]; do
    case $1 in --nodelist=*) NODES=${1#*=} ;; esac
    shift
  done
  for node in ${NODES//,/ }; do [[ " $DEAD " == *" $node "* ]] || SLURMD_NODENAME=$node "$@"; done
  exit
fi
trap 'echo "got USR1" >>calls; exit ${USR1_CODE:-75}' USR1
echo "srun $*" >>calls
[ "${WAIT_FOR_SIGNAL:-0}" = 0 ] || for _ in $(seq 3000); do sleep 0.1; done
folder=$(sed -n 's/^run_dir = "\(.*\)"/\1/p' a.toml)
folder=${folder:-runs/seer}
[ "${LAUNCHED:-1}" = 0 ] || { mkdir -p "$folder" && echo started >>"$folder/log.txt"; }
exit "${LAUNCH_CODE:-0}"
SH
chmod +x bin/*
export PATH=$scratch/bin:$PATH
touch a.toml
job() {  # SCRIPT: as Slurm runs it, a copy elsewhere; prints the exit code
  cp "$root/jobscripts/$1" slurm_script
  : >calls
  local rc=0
  env SLURM_JOB_ID=7 SLURM_CPUS_PER_TASK=4 JOB_SCRIPT="$1" "${@:2}" bash slurm_script a.toml >job.txt 2>&1 || rc=$?
  echo "$rc"
}
for script in seer_512gpu.sh seer_64gpu.sh seer_1node.sh seer_cpu.sh; do
  [ "$(job $script LAUNCH_CODE=75)" = 75 ] || { cat job.txt; fail "$script: exit code 75 is not passed on"; }
  grep -qx "requeue 7" calls || { cat job.txt calls; fail "$script: 75, and no requeue"; }
  grep -q "^srun --mpi=pmix .*seer pretrain a.toml$" calls || { cat calls; fail "$script: the launch"; }
  [ "$(job $script SLURM_RESTART_COUNT=1)" = 0 ] || { cat job.txt; fail "$script: the second start"; }
  grep -q "seer pretrain a.toml --resume auto$" calls || { cat calls; fail "$script: does not resume by itself"; }
  ! grep -q requeue calls || fail "$script: requeued after exit code 0"
done
# Ranks on cores are bound, by either launcher.
[ "$(job seer_cpu.sh)" = 0 ] && grep -q -- "--cpu-bind=cores --distribution=block:cyclic " calls || { cat calls; fail "srun: binding"; }
sed 's/^echo "srun/echo "mpirun/' bin/srun >bin/mpirun
chmod +x bin/mpirun
[ "$(job seer_cpu.sh SEER_LAUNCH=mpirun)" = 0 ] && grep -q "^mpirun --map-by numa:PE=4 --bind-to core .*seer pretrain" calls ||
  { cat calls; fail "mpirun: binding"; }
rm bin/mpirun
[ "$(job seer_cpu.sh LAUNCH_CODE=75 SLURM_RESTART_COUNT=3 SEER_MAX_RESTARTS=3)" = 75 ] || fail "restart limit: exit"
! grep -q requeue calls || fail "requeued beyond SEER_MAX_RESTARTS"
[ "$(job seer_cpu.sh LAUNCH_CODE=4)" = 4 ] || fail "exit code 4 is not passed on"
! grep -q requeue calls || fail "requeued on exit code 4"
[ "$(job seer_cpu.sh LAUNCH_CODE=5)" = 5 ] || fail "exit code 5 is not passed on"
grep -qx "requeue 7" calls || fail "no requeue on exit code 5: a lost node ends the run"
[ "$(job seer_cpu.sh LAUNCH_CODE=5 SEER_REQUEUE_CODES=75)" = 5 ] && ! grep -q requeue calls || fail "requeued against SEER_REQUEUE_CODES"
[ "$(job seer_cpu.sh LAUNCH_CODE=137 'SEER_REQUEUE_CODES=75 137')" = 137 ] || fail "exit code 137 with SEER_REQUEUE_CODES"
grep -qx "requeue 7" calls || fail "SEER_REQUEUE_CODES is not obeyed"
[ "$(job seer_cpu.sh LAUNCHED=0)" = 5 ] || { cat job.txt; fail "the launcher's 0 without any start passes for an end"; }
grep -q "nothing was started (try 3 of 3)" job.txt || { cat job.txt; fail "a start that was none is not told"; }
[ "$(grep -c "^srun --mpi" calls)" = 3 ] || { cat calls; fail "not launched again"; }

# SIGUSR1 to the batch script reaches the launcher, and the exit code of the launcher leads to the requeue. So does 138,
# which comes from ranks that were still starting and did not handle the signal yet.
cp "$root/jobscripts/seer_512gpu.sh" slurm_script
for returned in 75 138; do
  : >calls
  SLURM_JOB_ID=7 JOB_SCRIPT=seer_512gpu.sh WAIT_FOR_SIGNAL=1 USR1_CODE=$returned bash slurm_script a.toml >job.txt 2>&1 &
  batch=$!
  until_true grep -q '^srun' calls || { cat job.txt; fail "srun is not called"; }
  until_true eval 'kill -USR1 "$batch"; gone "$batch"' || { cat job.txt calls; fail "SIGUSR1 does not end the job"; }
  rc=0; wait "$batch" || rc=$?
  [ "$rc" = 75 ] || { cat job.txt calls; fail "after SIGUSR1: exit code $rc, wanted 75"; }
  grep -qx "got USR1" calls || fail "SIGUSR1 was not passed on"
  grep -qx "requeue 7" calls || fail "SIGUSR1: no requeue"
done

# The check of the nodes before the start: a good node, one that fails the check of the site, one that does not answer.
health() { job seer_cpu.sh SLURM_JOB_NODELIST="$1" NODES="$1" SEER_MIN_FREE_GIB=0 "${@:2}"; }
printf '[log]\nrun_dir = "%s/run"\n' "$scratch" >a.toml
[ "$(health n1,n2)" = 0 ] || { cat job.txt; fail "two good nodes"; }
[ "$(ls -A run)" = log.txt ] || fail "the check left files: $(ls -A run)"
[ "$(health n1,n2,n3 DEAD=n3 "SEER_NODE_CHECK=[ \$SLURMD_NODENAME != n1 ] || { echo lukewarm; false; }")" = 5 ] ||
  { cat job.txt; fail "two bad nodes of three: exit code"; }
grep -q "node n1 bad: .* fails: lukewarm" job.txt || { cat job.txt; fail "the bad node is not named"; }
grep -q "node n3 bad: it does not answer" job.txt || { cat job.txt; fail "the silent node is not named"; }
grep -qx "requeue 7" calls && grep -qx "update jobid=7 ExcNodeList=n1,n3,old" calls || { cat calls; fail "not excluded"; }
! grep -q "pretrain a.toml" calls || fail "started on bad nodes"
[ "$(wc -l <run/bad_nodes)" = 2 ] || { cat run/bad_nodes; fail "bad_nodes"; }
[ "$(health n1,n2 SEER_MIN_FREE_GIB=999999999)" = 3 ] || { cat job.txt; fail "all nodes bad: exit code"; }
grep -q "not the nodes' fault" job.txt && ! grep -q requeue calls || { cat job.txt calls; fail "all nodes bad"; }
[ "$(health n1,n2 SEER_MIN_FREE_GIB=999999999 SEER_HEALTH_CHECK=0)" = 0 ] || { cat job.txt; fail "SEER_HEALTH_CHECK=0"; }
[ "$(health n1 SLURM_GPUS_ON_NODE=2 CUDA_VISIBLE_DEVICES=0 PATH="$scratch/bin:/usr/bin:/bin")" = 3 ] || fail "a lost device"
grep -q "1 of 2 devices" job.txt || command -v nvidia-smi >/dev/null || { cat job.txt; fail "the lost device is not named"; }
echo "ok: nodes"

# A sweep: each task uses its own line and its own folder, and requeues only itself.
printf '# two runs\nswav.epsilon=0.03 schedule.lr_peak=0.3\n\nswav.epsilon=0.05\n' >sweep.txt
cp "$root/jobscripts/seer_sweep.sh" slurm_script
sweep() { SLURM_JOB_ID=9 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID="$1" LAUNCH_CODE=$2 JOB_SCRIPT=seer_sweep.sh \
  bash slurm_script sweep.txt a.toml --set log.every=1; }
: >calls
rc=0; sweep 2 75 >job.txt 2>&1 || rc=$?
[ "$rc" = 75 ] || { cat job.txt; fail "a task of an array: exit code $rc"; }
grep -qx "requeue 7_2" calls || { cat calls; fail "the task of the array is not requeued alone"; }
grep -q "pretrain a.toml --set log.every=1 --set swav.epsilon=0.05 --set log.run_dir=$scratch/run/2$" calls ||
  { cat calls; fail "the settings of line 2"; }
rc=0; sweep 3 0 >job.txt 2>&1 || rc=$?
[ "$rc" = 2 ] && grep -q "no line 3" job.txt || { cat job.txt; fail "a task without a line: exit code $rc"; }
echo "ok: sweep"

rc=0; SLURM_JOB_ID=7 JOB_SCRIPT=seer_cpu.sh bash "$root/jobscripts/seer_cpu.sh" >job.txt 2>&1 || rc=$?
[ "$rc" = 2 ] && grep -q "usage: sbatch" job.txt || { cat job.txt; fail "no configuration: exit code $rc, wanted 2"; }
echo "ok: requeueing"
