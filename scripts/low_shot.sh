#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SEER's table of few labels with one command: fractions of the labels x {pre-trained, from random weights} x draws, each
# with `seer finetune`; prints mean and standard deviation of the test's top-1 (one class per image) or mAP.
#   scripts/low_shot.sh CONFIG.toml --from WEIGHTS [--fractions 0.01,0.1,1 | --per-class 1,5] [--draws 3] [--ranks 2]
#       [--out runs/low_shot] [--random no] [-- --set section.key=value ...]
# Draw s uses data.subset_seed = data.seed = s. Every run is a folder below --out and resumes by itself: after an
# interruption, start the same command again. --random no leaves out the runs from random weights.
set -euo pipefail -o noglob
here=$(cd "$(dirname "$0")" && pwd)
: "${SEER:=$here/../build/host-release/seer}" "${MPIEXEC:=mpirun}"
if [ "$(id -u)" = 0 ]; then  # Open MPI wants to be told twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
usage() { sed -n '3,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 1 ] && [[ $1 != -* ]] || usage
config=$1 from='' key=data.fraction values=0.01,0.1,1 draws=3 ranks=1 out=runs/low_shot random=yes
shift
while [ $# -gt 0 ]; do
  [ "$1" = -- ] || [ $# -ge 2 ] || usage
  case $1 in
    --from) from=$2 ;; --fractions) key=data.fraction values=$2 ;; --per-class) key=data.per_class values=$2 ;;
    --draws) draws=$2 ;; --ranks) ranks=$2 ;; --out) out=$2 ;; --random) random=$2 ;;
    --) shift; break ;;
    *) usage ;;
  esac
  shift 2
done
[ -n "$from" ] || [ "$random" = yes ] || usage
[[ $draws =~ ^[1-9][0-9]*$ && $ranks =~ ^[1-9][0-9]*$ && -n $values ]] || usage
if [[ " $*" =~ [\ =](data\.(fraction|per_class|seed|subset_seed)|finetune\.from|log\.run_dir)= ]]; then
  echo "error: ${BASH_REMATCH[1]} is set by this script; see its own options" >&2
  exit 2
fi
[[ $* == *data.test_shards=* ]] || grep -qE '^ *test_shards *=' "$config" || {
  echo "error: no test set; add -- --set data.test_shards=..." >&2
  exit 2
}
mkdir -p "$out"
settings="config=$config from=$from ranks=$ranks options=$*"  # runs in --out resume, so they must be of the same table
if [ "$(cat "$out/SETTINGS" 2>/dev/null || echo "$settings")" != "$settings" ]; then
  echo "error: $out holds runs of another table: $(cat "$out/SETTINGS"); use another --out, or delete it" >&2
  exit 2
fi

one() {  # NAME FROM VALUE DRAW option...: the result of one run on standard output
  local folder=$out/$1-${key#data.}-$3-$4
  local launch=("$SEER")
  [ "$ranks" = 1 ] || launch=("$MPIEXEC" --oversubscribe --bind-to none -n "$ranks" "$SEER")
  local code=0
  "${launch[@]}" finetune "$config" --set log.run_dir="$folder" --set finetune.from="$2" --set "$key=$3" \
    --set data.subset_seed="$4" --set data.seed="$4" "${@:5}" </dev/null >"$folder.txt" 2>&1 || code=$?
  if [ "$code" != 0 ]; then
    [ "$code" -lt 128 ] || echo "interrupted in $folder; the same command goes on there" >&2
    grep '^error: ' "$folder.txt" >&2 || tail -n 5 "$folder.txt" >&2
    exit "$code"
  fi
  echo "$settings" >"$out/SETTINGS"
  grep -E '"test_(top1|map)"' "$folder/metrics.jsonl" | tail -n 1 | sed -E 's/.*"test_(top1|map)":([0-9.eE+-]+).*/\2/'
}

printf '%-12s %-12s %9s %9s  %s\n' "${key#data.}" start mean deviation draws
for value in ${values//,/ }; do
  for start in ${from:+pre-trained} $([ "$random" = no ] || echo random); do
    results=()
    for ((draw = 0; draw < draws; ++draw)); do
      result=$(one "$start" "$([ "$start" = random ] || echo "$from")" "$value" "$draw" "$@")
      results+=("$result")
    done
    printf '%s\n' "${results[@]}" | awk -v value="$value" -v start="$start" '
      {sum += $1; squares += $1 * $1; text = text sprintf(" %.2f", $1)}
      END {mean = sum / NR; squares -= NR * mean * mean
           spread = NR > 1 ? sprintf("%.2f", sqrt((squares > 0 ? squares : 0) / (NR - 1))) : "-"
           printf "%-12s %-12s %9.2f %9s %s\n", value, start, mean, spread, text}'
  done
done
