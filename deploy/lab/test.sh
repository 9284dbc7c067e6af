#!/usr/bin/env bash
# test.sh: run in the lab the tests of every package whose test files mention CORFU_LAB.
# Compiled on the host, run in the guest in the package's directory, as go test would. Several machines are booted side by
# side, since each keeps but one of the host's processors busy; a machine that is free takes the next package.
# Settings, beside the lab's own:
#   LAB_MACHINES      how many machines, default 2; one for each package at most. Each says which it is, as in "2| ok …"
#   LAB_TEST_PKGS     only packages whose import path matches this extended regular expression
#   LAB_TEST_ARGS     more flags for the test binaries, such as '-test.run Seal -test.v'
#   LAB_TEST_TIMEOUT  limit for one package, as a Go duration, default 20m
# LAB_TIMEOUT, the limit for the whole run, is 3000 s here.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repo=$(readlink -f "$here/../..")
GO=${GO:-go}

# in_guest LIST: LIST holds a line for each package: import path, directory, test binary. The folder of results is the
# same on all machines; who can make the folder of a package there runs it.
in_guest() {
	local package dir binary beat began status failed=0 count=0 total
	local -a flags
	total=$(wc -l <"$1")
	read -ra flags <<<"${LAB_TEST_ARGS:-}"
	while IFS=$'\t' read -r -u 3 package dir binary; do
		count=$((count + 1))
		mkdir "$LAB_RESULTS/taken-$count" 2>/dev/null || continue
		echo "=== $package ($count of $total)"
		began=$EPOCHREALTIME
		heartbeat "$package" &
		beat=$!
		status=0
		(cd "$dir" && "$binary" -test.paniconexit0 -test.timeout="${LAB_TEST_TIMEOUT:-20m}" "${flags[@]}" 3<&-) ||
			status=$?
		kill "$beat"
		wait "$beat" 2>/dev/null || true
		if [ "$status" -eq 0 ]; then
			printf 'ok  \t%s\t%ss\n' "$package" "$(elapsed "$began")"
		else
			printf 'FAIL\t%s\t%ss (status %s)\n' "$package" "$(elapsed "$began")" "$status"
			failed=1
		fi
	done 3<"$1"
	return $failed
}

elapsed() {
	local us=$((${EPOCHREALTIME/./} - ${1/./}))
	printf '%d.%03d' $((us / 1000000)) $((us / 1000 % 1000))
}

# A quiet package is not a dead one: say every half minute that it is at work.
heartbeat() {
	local seconds=0
	while sleep 30; do
		seconds=$((seconds + 30))
		echo "... $1: $seconds s"
	done
}

# lab_packages: the import path and directory of each package to run, those with most tests first: what takes long and
# is begun last would have the other machines wait.
lab_packages() {
	{ grep -rl --include='*_test.go' --exclude-dir=build CORFU_LAB . || true; } | sed 's|/[^/]*$||' | sort -u |
		while read -r dir; do printf '%s %s\n' "$(cat "$dir"/*_test.go | wc -c)" "$dir"; done | sort -rn | cut -d ' ' -f 2- |
		xargs -r "$GO" list -f '{{.ImportPath}}	{{.Dir}}' | grep -E "^[^	]*(${LAB_TEST_PKGS:-.})" || true
}

# compile LIST: builds each package's test binary into $work and writes the list for in_guest.
compile() {
	local package dir binary failed=0
	while IFS=$'\t' read -r -u 3 package dir; do
		binary=$work/${package//\//-}.test
		echo "compiling $package"
		if "$GO" test -c -o "$binary" "$package"; then
			printf '%s\t%s\t%s\n' "$package" "$dir" "$binary" >>"$1"
		else
			printf 'FAIL\t%s [build failed]\n' "$package"
			failed=1
		fi
	done 3< <(lab_packages)
	return $failed
}

if [ "${1-}" = --guest ]; then
	in_guest "$2" 2>&1 | sed -u "s/^/$3/" # pipefail: the tests' status
	exit
fi

cd "$repo"
mkdir -p build
work=$(mktemp -d "$repo/build/lab.XXXXXX")
trap 'rm -rf "$work"' EXIT
: >"$work/list"
status=0
compile "$work/list" || status=1
if [ ! -s "$work/list" ]; then
	if [ "$status" -eq 0 ] && [ -z "${LAB_TEST_PKGS:-}" ]; then
		echo "lab tests: no package has any"
		exit 0
	fi
	echo "lab tests: nothing to run${LAB_TEST_PKGS:+ (LAB_TEST_PKGS=$LAB_TEST_PKGS)}" >&2
	exit 1
fi
packages=$(wc -l <"$work/list")
machines=${LAB_MACHINES:-2}
[[ $machines =~ ^[0-9]+$ && $machines -ge 1 ]] || {
	echo "lab tests: LAB_MACHINES is a number from 1, not '$machines'" >&2
	exit 2
}
[ "$machines" -le "$packages" ] || machines=$packages
export LAB_TIMEOUT=${LAB_TIMEOUT:-3000} LAB_RESULTS=$work/results
running=()
trap 'kill "${running[@]}" 2>/dev/null; wait; exit 143' INT TERM
for machine in $(seq "$machines"); do
	mark=
	[ "$machines" -eq 1 ] || mark="$machine| "
	printf -v command '%q --guest %q %q' "$here/test.sh" "$work/list" "$mark"
	"$here/lab" "$command" &
	running+=($!)
done
for pid in "${running[@]}"; do
	wait "$pid" || status=$?
done
taken=$(find "$work/results" -maxdepth 1 -name 'taken-*' | wc -l)
if [ "$status" -eq 0 ] && [ "$taken" -ne "$packages" ]; then
	echo "lab tests: $taken of $packages packages were run" >&2
	status=1
fi
if [ "$status" -eq 0 ]; then
	echo "lab tests: all passed"
else
	echo "lab tests: FAILED" >&2
fi
exit "$status"
