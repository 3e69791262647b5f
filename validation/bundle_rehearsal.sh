#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a step of scripts/device_bundle.sh's archive in a folder that has nothing else (chroot): the archive, bash,
# coreutils, sed, awk, grep, tar, xz, python3, glibc, and CUDA's libraries. Root only; no device, no driver, no network.
#   validation/bundle_rehearsal.sh ARCHIVE STEP RESULTS [SECONDS]
#     SECONDS: then it is stopped by a signal, as one whose time is over
set -euo pipefail
archive=$(realpath "$1") step=$2 results=$(realpath -m "$3") seconds=${4:-600}
cuda=$(realpath "${CUDA_HOME:-/usr/local/cuda}")
[ "$(id -u)" -eq 0 ] || { echo "bundle_rehearsal: needs root for chroot and mount" >&2; exit 3; }
root=$(mktemp -d)
trap 'umount -l "$root/usr/local/cuda" "$root/proc" "$root/sys" "$root/dev" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
mkdir -p "$root"/{tmp,proc,sys,dev,out,etc,bin,usr/bin,usr/local/cuda,lib64,root} "$results"
for tool in bash sh env cat cp mv ln ls mkdir rm rmdir mktemp head tail sort tr cut paste uniq wc date sleep tee timeout kill \
  realpath dirname basename readlink stat nproc id uname true chmod touch od awk sed grep tar gzip xz ldd ps find python3; do
  path=$(PATH=/usr/bin:/bin type -P $tool) || continue
  cp -L "$path" "$root/usr/bin/$tool"
  { ldd "$path" 2>/dev/null || true; } | sed -nE 's/.*(=> |^\t)(\/[^ ]+) .*/\2/p' | xargs -r -I{} cp -Ln --parents {} "$root"
done
cp "$root"/usr/bin/{bash,sh,true} "$root/bin/"
cp -r --parents "$(/usr/bin/python3 -c 'import os; print(os.path.dirname(os.__file__))')" "$root"
for library in libc libm libdl librt libpthread libutil libresolv libnss_files; do  # glibc as a whole
  cp -Ln --parents /lib/x86_64-linux-gnu/$library.so.? "$root" 2>/dev/null || true
done
echo root:x:0:0:root:/root:/bin/bash >"$root/etc/passwd"
mount --bind "$cuda" "$root/usr/local/cuda"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --bind /dev "$root/dev"
cp "$(dirname "${BASH_SOURCE[0]}")/../scripts/run_there.sh" "$root/"
cp "$archive" "$root/seer_device.tar.xz"
rc=0
timeout -k 30 "$seconds" unshare --net bash -c 'ip link set lo up; exec chroot "$0" /usr/bin/env -i PATH=/usr/bin:/bin \
  HOME=/root OUT=/out ARCHIVE=/seer_device.tar.xz /usr/bin/bash /run_there.sh "$1"' "$root" "$step" </dev/null || rc=$?
cp "$root"/out/* "$results/"
echo "bundle_rehearsal: exit code $rc; in the folder of results: $(cd "$results" && ls -s | tail -n +2 | paste -sd' ')"
