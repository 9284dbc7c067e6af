#!/usr/bin/env bash
# fresh-machine.sh [--test]: time the two commands of README.md where nobody was before: a Debian 12 made by debootstrap, in which only
# what its user would bring is put (git, make, Go), from git clone to the result. --test runs make test, too, which takes 25 minutes.
# Needs root.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repo=$(readlink -f "$here/..")
GO=${GO:-go}

die() {
	echo "fresh-machine: $*" >&2
	exit 1
}

# stage NAME COMMAND...: run it, and say how long it took.
stage() {
	local name=$1 began=$EPOCHREALTIME
	shift
	"$@" || die "$name failed"
	printf '%-60s %7.1f s\n' "$name" "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')" | tee -a "$work/times"
}

inside() {
	chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		LANG=C.UTF-8 ${GOPROXY:+GOPROXY="$GOPROXY"} bash -euo pipefail -c "$1"
}

# furnish: proc, and a /dev and a /sys of its own. Nothing of this machine is mounted below the folder that is removed in the end: what rm
# finds under a mount that did not come off is gone.
furnish() {
	local node name major minor
	mount -t proc proc "$root/proc"
	mount -t sysfs -o ro sysfs "$root/sys"
	mount -t tmpfs -o mode=755 tmpfs "$root/dev"
	for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
		IFS=: read -r name major minor <<<"$node"
		mknod -m 666 "$root/dev/$name" c "$major" "$minor"
	done
	mkdir -m 1777 "$root/dev/shm"
	ln -s /proc/self/fd "$root/dev/fd"
}

# clean_up removes the work folder, and nothing as long as anything is mounted below.
clean_up() {
	local dir mounts
	for dir in proc dev sys; do
		! mountpoint -q "$root/$dir" || umount "$root/$dir" || true
	done
	if ! mounts=$(cat /proc/self/mountinfo) || [[ -z $mounts || $mounts == *" $work/"* ]]; then
		echo "fresh-machine: something is still mounted below $work, which stays" >&2
		return
	fi
	rm -rf --one-file-system "$work"
}

[ "${1-}" = '' ] || [ "${1-}" = --test ] || die "takes --test or nothing"
[ "$(id -u)" -eq 0 ] || die "must be root (debootstrap, chroot)"
# In namespaces of its own: what it mounts and what it leaves running is gone when it ends.
if [ -z "${CORFU_FRESH:-}" ]; then
	CORFU_FRESH=1 exec unshare --mount --pid --fork --kill-child --propagation private "$0" "$@"
fi
"$here/apt-missing" debootstrap
# shellcheck disable=SC2016 # the names are apt-get's
site=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
	awk '$2 == "bookworm" && $3 == "main" { print $1; exit }')
[ -n "$site" ] || die "apt's sources name no Debian bookworm main"
work=$(mktemp -d "$(readlink -f "${TMPDIR:-/var/tmp}")/corfu-fresh.XXXXXX") # as the kernel names it in mountinfo
root=$work/root
trap clean_up EXIT

echo "making a Debian 12 from $site" >&2
stage 'a fresh Debian 12 (debootstrap; not counted)' debootstrap --variant=minbase --include=ca-certificates,git,make bookworm "$root" "$site" >"$work/log" ||
	{ tail "$work/log" >&2 && exit 1; }
tail -n 1 "$work/log"
furnish
# Links in there lead, from here, to files of this machine: replaced, and never written through.
cp --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts" # which an installer writes, and debootstrap does not
# The authorities that this machine trusts, of which a network with a proxy has its own.
cp -rL --remove-destination /etc/ssl/certs/. "$root/etc/ssl/certs/"
# As its archive unpacks to /usr/local/go.
cp -a "$("$GO" env GOROOT)" "$root/usr/local/go"
GOPROXY=$("$GO" env GOPROXY)
# A copy, in which nothing is shared with the checkout.
git clone -q --bare --no-hardlinks "$repo" "$root/origin"
revision=$(git -C "$repo" rev-parse HEAD)

began=$EPOCHREALTIME
stage 'git clone' inside "git config --global --add safe.directory '*' && git clone -q /origin corfu && cd corfu && git checkout -q $revision"
stage 'make demo' inside 'cd corfu && make demo'
if [ "${1-}" = --test ]; then
	stage 'make test' inside 'cd corfu && make test'
fi
echo
cat "$work/times"
awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%-60s %7.1f s\n", "from clone to result", b - a }'
