#!/usr/bin/env bash
# install.sh: install what the lab needs on the host. The guest's kernel is not among it: fetch-kernel unpacks that
# without installing it.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")

# The guest sees the host's files, so what runs inside it (ip, rdma, ibv_devinfo, perftest, fio) is installed here too.
packages=(
	qemu-system-x86 seabios             # the virtual machine
	busybox-static cpio kmod xz-utils   # its initramfs and kernel image
	e2fsprogs util-linux                # its disk; flock, setsid, chrt
	iproute2 rdma-core ibverbs-providers ibverbs-utils libibverbs1 librdmacm1 # Soft-RoCE and its user space
	perftest fio                        # measuring beside our own
)
exec "$here/../apt-missing" "${packages[@]}"
