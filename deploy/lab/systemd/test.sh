#!/usr/bin/env bash
# test.sh: the appliance's life in a machine with systemd: installed by the script, used, booted anew, taken over by the package,
# upgraded, taken away. What each part is stands in parts.sh. PLAN replaces the plan, for one part alone: PLAN='before setup running'.
# test.sh --container: the same without a VM, in a container of systemd-nspawn, over tcp: a minute in place of a quarter of an hour. It has
# the host's kernel, so that RDMA, huge pages and locked memory stay out.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repo=$(readlink -f "$here/../../..")
GO=${GO:-go}
# Five daemons that poll for completions leave little of a single processor; a busy host needs the time.
export LAB_CPUS=${LAB_CPUS:-2} LAB_TIMEOUT=${LAB_TIMEOUT:-1800}

die() {
	echo "test-appliance: $*" >&2
	exit 1
}

# boot_vm, boot_container: once, to the end.
boot_vm() { "$here/boot" "$work/disk" "$share"; }

boot_container() {
	timeout -k 5 600 systemd-nspawn -q -D "$work/root" --register=no --keep-unit --boot --private-network --console=pipe --bind="$share:/run/lab" \
		</dev/null >"$share/console" 2>&1 || [ $? -eq 133 ] # what nspawn says of a reboot
}

# furnish_container: the image's files, and the service without what the VM needs.
furnish_container() {
	"$repo/deploy/apt-missing" systemd-container e2fsprogs
	mkdir "$work/root"
	/sbin/debugfs -R "rdump / $work/root" "$image" 2>"$work/log"
	sed -i '/run-lab.mount/d' "$work/root/etc/systemd/system/lab.service"
	# The host's kernel may have no dummy interfaces: the address lies on the container's own loopback.
	rm "$work/root"/etc/systemd/network/10-d0.*
	printf '[Match]\nName=lo\n\n[Network]\nAddress=10.77.0.1/32\n' >"$work/root/etc/systemd/network/10-lo.network"
}

# certificates: those of the machine, as docs/install.md has it, and some that are to be refused.
certificates() {
	local name corfu=$work/corfu-1 dir=$share/certs
	issue() { # DIR NAME HOST OPTION...
		local role=${2%-*} host=(--host "$3")
		case $2 in operator) role=admin host=() ;; client) host=() ;; esac
		"$corfu" certs issue --dir "$work/ca" --out "$1" --role "$role" --name "$2" "${host[@]}" "${@:4}" >/dev/null
	}
	"$corfu" certs init --dir "$work/ca" >/dev/null
	"$corfu" certs revoke --dir "$work/ca" >/dev/null # nobody, yet
	for name in layout-1 seq-1 unit-1 unit-2 client operator; do
		issue "$dir" "$name" 10.77.0.1
		issue "$dir/renewed" "$name" 10.77.0.1
	done
	issue "$dir/over" unit-1 10.77.0.1 --life 1s
	issue "$dir/elsewhere" layout-1 10.0.0.9
	issue "$dir/revoked" unit-1 10.77.0.1
	"$corfu" certs revoke --dir "$work/ca" "$dir/revoked/unit-1.crt" >/dev/null
	cp "$work/ca/ca.crl" "$dir/revoked/"
}

# The machine under emulation leaves out what needs no RDMA; the container does everything.
plan='before setup healthy running entries trusted doctor idle reboot healthy running read_back entries
	package_1 healthy read_back package_2 healthy running read_back entries package_gone
	setup purge_script'
boot=boot_vm fabric=(--soft-roce d0 --huge-pages 16)
case ${1-} in
'') ;;
--container)
	boot=boot_container fabric=(--provider tcp --store '/var/lib/corfu/first,')
	plan='before dry options_once disk_full mistrust setup again elsewhere healthy running entries trusted doctor idle crash healthy read_back reboot
	healthy running read_back entries remove_and_back healthy read_back
	package_1 healthy read_back package_2 healthy running read_back entries package_gone
	package_alone healthy running entries sick decided retired read_back package_gone purge_mounted setup purge_script'
	;;
*) die "takes --container or nothing" ;;
esac
cd "$repo"
began=$SECONDS
image=$("$here/image")
echo "image: $((SECONDS - began)) s"
mkdir -p build
work=$(mktemp -d "$repo/build/appliance.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; [ -n "${LAB_KEEP:-}" ] && echo "kept $work" || rm -rf "$work"' EXIT
share=$work/share
mkdir -p "$share/checkout/bin"
# The same build as ever, told other versions: nothing is compiled twice. PACKAGES: a folder of packages that were kept.
if [ -n "${PACKAGES:-}" ]; then
	cp "$PACKAGES"/corfu-[12] "$PACKAGES"/share/one.deb "$PACKAGES"/share/two.deb "$work/"
else
	for v in 1 2; do
		CGO_ENABLED=1 "$GO" build -ldflags "-s -w -X main.version=1.0.$v" -o "$work/corfu-$v" ./tools/corfu
		BINARY=$work/corfu-$v VERSION=1.0.$v COMPRESS=none deploy/deb/build "$work" >/dev/null
	done
	mv "$work"/corfu_1.0.1_*.deb "$work/one.deb"
	mv "$work"/corfu_1.0.2_*.deb "$work/two.deb"
fi
mv "$work"/one.deb "$work"/two.deb "$share/"
cp -r deploy docs "$share/checkout/"
cp "$work/corfu-1" "$share/checkout/bin/corfu"
cp "$here/guest" "$here/parts.sh" "$share/"
tr -s ' \n\t' '\n' <<<"${PLAN:-$plan}" >"$share/plan"
printf '%s\n' --role all --addr 10.77.0.1 --certs /run/lab/certs "${fabric[@]}" >"$share/options"
certificates
if [ "$boot" = boot_vm ]; then
	cp --sparse=always "$image" "$work/disk"
else
	furnish_container
fi
echo "packages and disk: $((SECONDS - began)) s"

: >"$share/output"
tail -n +1 -s 0.2 --pid=$$ -f "$share/output" 2>/dev/null &
for ((n = 1; n <= 1 + $(grep -c '^reboot$' "$share/plan"); n++)); do
	status=0
	"$boot" || status=$?
	[ ! -e "$share/status" ] || break
	if [ $status -ne 0 ]; then
		tail -n 40 "$share/console" | tr -d '\r' | sed 's/^/  | /' >&2
		die "boot $n ended with status $status and no word from the machine"
	fi
done
sleep 0.5 # what is written last is still to be shown
[ "$(cat "$share/status" 2>/dev/null)" = 0 ] || die "FAILED after $((SECONDS - began)) s"
echo "test-appliance: all passed, $n boots, $((SECONDS - began)) s"
