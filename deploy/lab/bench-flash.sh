#!/bin/bash
# make bench-flash-lab: measures the flash engine beside fio on an emulated NVMe disk in the lab.
# BENCH_ARGS are more words for corfu bench-flash; LAB_* are the lab's own (README.md), TMPDIR is where the disk's image lies.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
"$here/../apt-missing" fio

image=$(mktemp "${TMPDIR:-/tmp}/corfu-nvme.XXXXXX")
trap 'rm -f "$image"' EXIT
truncate -s 3G "$image"

# The guest's own: nothing is to be expanded here.
# shellcheck disable=SC2016
command='set -e
modprobe nvme
for ((i = 0; i < 100; i++)); do [ ! -b /dev/nvme0n1 ] || break; sleep 0.1; done
mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1,nodiscard /dev/nvme0n1
mkdir /run/nvme
mount /dev/nvme0n1 /run/nvme
bin/corfu bench-flash --dir /run/nvme --size 64 --duration 2s --rounds 3 --most 10000 --restart 1000,20000 '${BENCH_ARGS-}

export LAB_CPUS=${LAB_CPUS:-2} LAB_TIMEOUT=${LAB_TIMEOUT:-900} LAB_DISK=none
export LAB_QEMU_ARGS="${LAB_QEMU_ARGS-} -drive if=none,id=nvme,file=$image,format=raw,cache=writeback -device nvme,drive=nvme,serial=corfu"
"$here/lab" "$command"
