#!/usr/bin/env bash
# deps.sh [--lab]: install what building and running corfu needs on Debian 12; with --lab, what the lab needs too.
# Go itself is not installed: its version is go.mod's business.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")

case "${1-}" in
'' | --lab) ;;
*)
	echo "usage: deps.sh [--lab]" >&2
	exit 2
	;;
esac

"$here/apt-missing" gcc libc6-dev libibverbs-dev librdmacm-dev ibverbs-providers rdma-core make git ca-certificates
if [ "${1-}" = --lab ]; then
	"$here/lab/install.sh"
fi
