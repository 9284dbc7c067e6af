#!/bin/bash
# Runs corfu and other log services side by side: start each on loopback, drive it, stop it.
#   run.sh [-r REPS] [-d DURATION] [-s SIZES] [-o OUT.json] [-m MEASURES] [-q QUIETWAIT] [CONFIG ...]
# CONFIG: names printed by run.sh -l (default: corfu, Redis and NATS). Repetitions are interleaved:
# each runs all configurations once. Servers listen on 127.0.0.1 only. Data is kept below PEERS_DIR
# (default: build/peers of the checkout) and in /dev/shm/corfu-peers; every process that is started
# here is stopped by its pid.
set -u
H=$(cd "$(dirname "$0")" && pwd)
P=${PEERS_DIR:-$H/../../build/peers}
B=$P/bin D=$P/data LOG=$P/logs
CORFU=${CORFU:-$H/../../bin/corfu}
REPS=5 DUR=1500ms SIZES=4000,256,32768 OUT=$P/results.json MEAS=lat1,w16,pipe,read,page,e2e,tail QUIET=2s
DEFAULT="corfu-r2-flash redis-r2-flash nats-r3-flash corfu-r3-flash corfu-r2-memory redis-r2-memory"
CORE="nats-r1-flash nats-r1-memory nats-r3-flash nats-r3-memory
etcd36-r1-flash etcd36-r1-memory etcd36-r3-flash etcd36-r3-memory
redis-r1-flash redis-r1-memory redis-r2-flash redis-r2-memory
hraft-bolt-r1-flash hraft-bolt-r3-flash hraft-bolt-r3-memory
hraft-wal-r1-flash hraft-wal-r3-flash hraft-wal-r3-memory
dragonboat-tan-r1-flash dragonboat-tan-r3-flash dragonboat-tan-r3-memory
dragonboat-r3-flash
liftbridge-r1-memory liftbridge-r3-memory"
EXTRA="corfu-r1-flash corfu-r3-memory etcd37-r1-flash etcd37-r3-flash dragonboat-r1-flash hraft-bolt-r1-memory hraft-wal-r1-memory"
while getopts r:d:s:o:m:q:l f; do case $f in
r) REPS=$OPTARG ;; d) DUR=$OPTARG ;; s) SIZES=$OPTARG ;; o) OUT=$OPTARG ;; m) MEAS=$OPTARG ;; q) QUIET=$OPTARG ;;
l) echo $DEFAULT $CORE $EXTRA | tr ' ' '\n' | sort -u; exit 0 ;; *) exit 2 ;; esac; done
shift $((OPTIND - 1))
CONFIGS=${*:-$DEFAULT}
mkdir -p "$D" "$LOG"
PIDS=()

start() { # log name, command...
	local l=$1; shift
	"$@" >>"$LOG/$l.log" 2>&1 &
	PIDS+=($!)
}
stopall() {
	local p
	for p in "${PIDS[@]:-}"; do [ -n "$p" ] && kill "$p" 2>/dev/null; done
	for p in "${PIDS[@]:-}"; do
		[ -n "$p" ] || continue
		for _ in $(seq 50); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
		kill -9 "$p" 2>/dev/null
		wait "$p" 2>/dev/null
	done
	PIDS=()
	find "$D" -mindepth 1 -delete 2>/dev/null
	rm -rf /dev/shm/corfu-peers
}
trap 'stopall; exit 130' INT TERM
port() { # wait until 127.0.0.1:$1 answers
	for _ in $(seq 150); do (exec 3<>/dev/tcp/127.0.0.1/$1) 2>/dev/null && return 0; sleep 0.1; done
	echo "port $1 never opened" >&2; return 1
}

up_nats() { # repl mode
	local i sync routes=""
	[ "$2" = flash ] && sync="sync_interval: always" || sync=""
	for ((i = 0; i < $1; i++)); do routes+="nats://127.0.0.1:$((27230 + i)),"; done
	for ((i = 0; i < $1; i++)); do
		mkdir -p "$D/nats$i"
		{
			echo "server_name: n$i"; echo "listen: 127.0.0.1:$((27220 + i))"
			echo "jetstream { store_dir: \"$D/nats$i\", max_file_store: 40GB, max_memory_store: 1GB"; echo "  $sync"; echo "}"
			[ "$1" -gt 1 ] && { echo "cluster { name: peers, listen: 127.0.0.1:$((27230 + i)), routes: ["; echo "${routes%,}" | tr ',' '\n'; echo "] }"; }
		} >"$D/nats$i.conf"
		start nats "$B/nats-server" -c "$D/nats$i.conf"
	done
	A=""
	for ((i = 0; i < $1; i++)); do port $((27220 + i)) || return 1; A+="127.0.0.1:$((27220 + i)),"; done
	[ "$1" -gt 1 ] && sleep 4
	A=${A%,}
}
up_etcd() { # repl mode binary
	local i c="" x=""
	[ "$2" = memory ] && x=--unsafe-no-fsync
	for ((i = 0; i < $1; i++)); do c+="e$i=http://127.0.0.1:$((27390 + i)),"; done
	for ((i = 0; i < $1; i++)); do
		start etcd "$B/$3" --name e$i --data-dir "$D/e$i" --log-level error \
			--listen-client-urls http://127.0.0.1:$((27380 + i)) --advertise-client-urls http://127.0.0.1:$((27380 + i)) \
			--listen-peer-urls http://127.0.0.1:$((27390 + i)) --initial-advertise-peer-urls http://127.0.0.1:$((27390 + i)) \
			--initial-cluster "${c%,}" --initial-cluster-state new --quota-backend-bytes 8589934592 $x
	done
	A=""
	for ((i = 0; i < $1; i++)); do port $((27380 + i)) || return 1; A+="127.0.0.1:$((27380 + i)),"; done
	A=${A%,}
}
up_redis() { # repl mode
	local i f x
	[ "$2" = flash ] && f=always || f=everysec
	for ((i = 0; i < $1; i++)); do
		mkdir -p "$D/redis$i"
		x=""
		[ $i -gt 0 ] && x="--replicaof 127.0.0.1 27679"
		start redis redis-server --bind 127.0.0.1 --port $((27679 + i)) --dir "$D/redis$i" --save "" \
			--appendonly yes --appendfsync $f --auto-aof-rewrite-percentage 0 --repl-diskless-sync yes \
			--repl-diskless-sync-delay 0 --repl-backlog-size 256mb --client-output-buffer-limit "replica 0 0 0" --daemonize no $x
	done
	for ((i = 0; i < $1; i++)); do port $((27679 + i)) || return 1; done
	A=127.0.0.1:27679
}
up_liftbridge() { # repl mode
	local i x
	start lift-nats "$B/nats-server" -a 127.0.0.1 -p 27220
	port 27220 || return 1
	A=""
	for ((i = 0; i < $1; i++)); do
		[ $i -eq 0 ] && x="raft.bootstrap.seed: true" || x=""
		cat >"$D/lift$i.yaml" <<-Y
			host: 127.0.0.1
			port: $((27292 + i))
			data.dir: $D/lift$i
			logging.level: error
			nats.servers:
			  - nats://127.0.0.1:27220
			clustering:
			  server.id: l$i
			  min.insync.replicas: $1
			  $x
		Y
		start lift "$B/liftbridge" "$D/lift$i.yaml"
		port $((27292 + i)) || return 1
		[ $i -eq 0 ] && sleep 2
		A+="127.0.0.1:$((27292 + i)),"
	done
	[ "$1" -gt 1 ] && sleep 4
	A=${A%,}
}

up_corfu() { # repl mode; CORFU is the binary
	local i u="" ids=""
	for ((i = 1; i <= $1; i++)); do u+=" --unit $i=127.0.0.1:$((27700 + i))"; ids+="$i,"; done
	start corfu "$CORFU" seq --dir "$D/seq" --control 127.0.0.1:27700 --http off --provider tcp
	for ((i = 1; i <= $1; i++)); do
		start corfu "$CORFU" unit --id $i --store "$D/unit$i" --control 127.0.0.1:$((27700 + i)) --http off --provider tcp
	done
	start corfu "$CORFU" layout --dir "$D/layout" --control 127.0.0.1:27690 --http off --provider tcp --durability "$2" --seq 1=127.0.0.1:27700 $u --chain "${ids%,}"
	port 27690 || return 1
	A=127.0.0.1:27690
	for _ in $(seq 50); do "$CORFU" status --cluster $A --timeout 5s >/dev/null 2>&1 && return 0; sleep 0.2; done
	return 1
}

if [ -n "$(ls -A "$D" 2>/dev/null)" ]; then echo "data folder $D not empty" >&2; exit 1; fi
for rep in $(seq $((1 + ${REPBASE:-0})) $((REPS + ${REPBASE:-0}))); do
	for c in $CONFIGS; do
		echo "repetition $rep of $((REPS + ${REPBASE:-0})): $c, ${SECONDS} s" >&2
		mode=${c##*-} rest=${c%-*} repl=${rest##*-r}
		sys=${rest%-r*} A="" drv=$sys
		case $sys in
		nats) up_nats "$repl" "$mode" ;;
		etcd3[67]) up_etcd "$repl" "$mode" "$sys"; drv=etcd ;;
		redis) up_redis "$repl" "$mode" ;;
		corfu) up_corfu "$repl" "$mode" ;;
		liftbridge) up_liftbridge "$repl" "$mode" ;;
		hraft-* | dragonboat*) ;;
		*) echo "unknown config $c" >&2; continue ;;
		esac || { echo "$c: server did not start" >&2; stopall; continue; }
		timeout 240 "$B/peerbench" -sys $drv -label $sys -repl "$repl" -mode "$mode" -addrs "$A" -data "$D/inproc" \
			-sizes "$SIZES" -measures "$MEAS" -dur "$DUR" -pids "$(IFS=,; echo "${PIDS[*]:-}")" -quiet $QUIET -rep "$rep" -out "$OUT" 2>>"$LOG/run.log"
		rc=$?
		[ $rc -eq 0 ] || echo "rep $rep $c: rc $rc (see $LOG/run.log)" >&2
		stopall
	done
done
