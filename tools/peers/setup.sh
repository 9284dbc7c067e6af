#!/bin/bash
# Builds what run.sh needs for the systems named (default: corfu, redis, nats) into PEERS_DIR/bin:
#   setup.sh [corfu|redis|nats|etcd36|etcd37|liftbridge|floors ...]
# hraft and dragonboat are part of the load generator. Needs Go, and for floors gcc.
set -eu
H=$(cd "$(dirname "$0")" && pwd)
P=${PEERS_DIR:-$H/../../build/peers}
mkdir -p "$P/bin"
B=$(cd "$P/bin" && pwd)
build() { (cd "$H/$1" && echo "building $1" >&2 && go build -o "$B/$(basename "$1")" "${@:2}" .); }
build peerbench
(cd "$H/peerbench" && go build -o "$B/table" ./table)
for system in ${*:-corfu redis nats}; do
	case $system in
	corfu) make -s -C "$H/../.." build ;;
	# The package enables a service; run.sh starts instances of its own, on other ports.
	redis) "$H/../../deploy/apt-missing" redis-server ;;
	nats) [ -x "$B/nats-server" ] || GOBIN=$B go install github.com/nats-io/nats-server/v2@v2.15.2 ;;
	etcd36 | etcd37) build servers/$system ;;
	liftbridge) build servers/liftbridge -mod=mod ;;
	floors)
		"$H/../../deploy/apt-missing" fio sockperf gcc libc6-dev
		build floors
		gcc -O2 -o "$B/pingpong" "$H/floors/c/pingpong.c"
		;;
	*) echo "setup.sh: unknown system $system" >&2 && exit 2 ;;
	esac
done
