#!/bin/bash
# Floors of this machine (setup.sh floors builds what it needs): floors.sh [REPS] [OUT.json]; JSON lines.
set -u
H=$(cd "$(dirname "$0")" && pwd)
P=${PEERS_DIR:-$H/../../build/peers}
R=${1:-3} O=${2:-$P/floors.json} F=$P/data-floors
mkdir -p "$F"
foreign() { # share of the machine in use right now, over 300 ms
	local a b; a=$(awk '/^cpu /{print $2+$3+$4+$6+$7+$8+$9, $2+$3+$4+$5+$6+$7+$8+$9}' /proc/stat); sleep 0.3
	b=$(awk '/^cpu /{print $2+$3+$4+$6+$7+$8+$9, $2+$3+$4+$5+$6+$7+$8+$9}' /proc/stat)
	echo "$a $b" | awk '{printf "%.2f", ($3-$1)/($4-$2+0.001)}'
}
fiojob() { # name, args...
	local n=$1; shift
	fio --name=j --filename="$F/fio.dat" --size=256M --bs=4k --rw=write --overwrite=1 --direct=1 --runtime=3 --time_based --output-format=json "$@" 2>/dev/null |
		N="$n" REP=$rep FOR=$fo python3 -c '
import json,os,sys
t=sys.stdin.read(); d=json.loads(t[t.index("{"):]); n=os.environ["N"]
w=[j["write"] for j in d["jobs"]]; s=[j["sync"] for j in d["jobs"]]
io=sum(x["total_ios"] for x in w); rt=max(x["runtime"] for x in w)/1e3
g=lambda x,k,p: x.get(k,{}).get("percentile",{}).get(p,0)/1e3
med=lambda v: sorted(v)[len(v)//2]
r=dict(floor=n,rep=int(os.environ["REP"]),foreign_before=float(os.environ["FOR"]),n=io,iops=round(io/rt,1),
 write_p50_us=med([g(x,"clat_ns","50.000000") for x in w]),write_p99_us=med([g(x,"clat_ns","99.000000") for x in w]),
 sync_p50_us=med([g(x,"lat_ns","50.000000") for x in s]),sync_p99_us=med([g(x,"lat_ns","99.000000") for x in s]))
print(json.dumps(r))' >>"$O"
}
for rep in $(seq "$R"); do
	fo=$(foreign)
	fiojob "fio 4 KiB O_DIRECT qd1 fdatasync=1" --ioengine=psync --fdatasync=1
	fiojob "fio 4 KiB O_DIRECT qd1 fdatasync=1, growing file" --ioengine=psync --fdatasync=1 --overwrite=0 --filename="$F/fio-grow.dat" --size=1g
	fiojob "fio 4 KiB O_DIRECT libaio qd16 fdatasync=1" --ioengine=libaio --iodepth=16 --fdatasync=1
	fiojob "fio 4 KiB O_DIRECT 16 jobs qd1 fdatasync=1 (one file)" --ioengine=psync --fdatasync=1 --numjobs=16 --thread
	fiojob "fio 4 KiB O_DIRECT qd1 no sync" --ioengine=psync
	fiojob "fio 4 KiB O_DIRECT libaio qd16 no sync" --ioengine=libaio --iodepth=16
	fiojob "fio 4 KiB O_DIRECT|O_DSYNC qd1" --ioengine=psync --sync=dsync
	fiojob "fio 64 KiB O_DIRECT qd1 fdatasync=1" --ioengine=psync --fdatasync=1 --bs=64k
	fiojob "fio 1 MiB O_DIRECT qd1 fdatasync=1" --ioengine=psync --fdatasync=1 --bs=1m
	rm -f "$F"/fio*.dat
	{ "$P/bin/pingpong" 64 3; "$P/bin/pingpong" 4096 3; "$P/bin/floors" "$F"; } |
		sed "s/^{/{\"rep\":$rep,\"foreign_before\":$fo,/" >>"$O"
	# sockperf: one-way latency is reported; round trip = twice
	sockperf server --tcp -i 127.0.0.1 -p 27901 >/dev/null 2>&1 & sp=$!
	sleep 0.5
	for m in 64 4096; do
		sockperf ping-pong --tcp -i 127.0.0.1 -p 27901 -m $m -t 3 2>/dev/null | sed 's/\x1b\[[0-9;]*m//g' |
			REP=$rep FOR=$fo M=$m python3 -c '
import os,re,sys,json
t=sys.stdin.read(); p={a:float(b) for a,b in re.findall(r"percentile ([0-9.]+) = *([0-9.]+)",t)}
if p: print(json.dumps(dict(rep=int(os.environ["REP"]),foreign_before=float(os.environ["FOR"]),floor="sockperf tcp ping-pong %s B (round trip)"%os.environ["M"],n=0,p50_us=round(2*p["50.000"],2),p99_us=round(2*p["99.000"],2))))' >>"$O"
	done
	kill $sp; wait $sp 2>/dev/null
done
rm -rf "$F"
