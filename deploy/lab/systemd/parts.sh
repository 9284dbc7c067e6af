# shellcheck shell=bash
# The parts of make test-appliance, which run in the machine with systemd, in the order that test.sh plans. /run/lab/checkout is what a
# checkout has for the installer: deploy, docs and bin/corfu. Each part fails by its first command that does.

checkout=/run/lab/checkout
keep=/run/lab/keep # what must hold over parts and boots
mapfile -t options </run/lab/options # for install.sh
mkdir -p "$keep"

wrong() {
	echo "WRONG: $*"
	exit 1
}

# alice runs a command as a user logs in: with the groups and limits that she has then.
alice() { runuser -l alice -c "$*"; }

# machine NAME: the state of all that an installation could touch, as text.
machine() {
	mkdir -p "$keep/$1"
	# Not: what changes by itself, dpkg's and systemd's own books, and passwd's backups.
	find / -xdev \( -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o \
		-path /var/lib/apt -o -path /var/lib/systemd -o -path /usr/lib/modules -o -path /lost+found -o -path /home \) -prune -o \
		! -name '*-' ! -name 'ld.so.cache' ! -name '.pwd.lock' -printf '%y %m %U:%G %p %l\n' | sort >"$keep/$1/files"
	(cd /etc && find . -type f ! -name '*-' ! -name ld.so.cache -exec sha256sum {} + | sort -k 2) >"$keep/$1/etc"
	getent passwd >"$keep/$1/passwd"
	getent group >"$keep/$1/group"
	sysctl -a 2>/dev/null | grep -E '^(vm\.nr_hugepages|vm\.overcommit|kernel\.sem|net\.ipv4\.conf)' | sort >"$keep/$1/sysctl"
	ls /sys/class/infiniband 2>/dev/null >"$keep/$1/rdma" || true
	systemctl list-units --all --no-legend --no-pager --plain 'corfu*' >"$keep/$1/running"
}

same_machine() { # NAME NAME
	diff -r "$keep/$1" "$keep/$2" || wrong "the machine is not as it was"
}

before() {
	useradd --create-home alice
	machine before
}

# Neither looking nor trying changes anything.
dry() {
	"$checkout/deploy/install.sh" --dry-run "${options[@]}" >/tmp/dry
	! grep -q '^do ' /tmp/dry || wrong "a dry run did something"
	! "$checkout/deploy/install.sh" --check "${options[@]}" >/tmp/check 2>&1 || wrong "--check finds nothing to do"
	machine after-dry
	same_machine before after-dry
}

setup() {
	"$checkout/deploy/install.sh" "${options[@]}"
}

# A second run finds all as it should be.
again() {
	"$checkout/deploy/install.sh" "${options[@]}" >/tmp/again
	! grep '^do ' /tmp/again || wrong "the second run changed something"
	"$checkout/deploy/install.sh" --check "${options[@]}" >/tmp/check || { cat /tmp/check && wrong "--check"; }
	# What the operator writes stays.
	echo '# mine' >>/etc/corfu/unit-1.yaml
	"$checkout/deploy/install.sh" "${options[@]}" | grep 'unit-1.yaml was changed by hand and stays'
	sed -i '/^# mine/d' /etc/corfu/unit-1.yaml
}

# The cluster runs, over verbs in the VM, as corfu, with what the services were promised.
running() {
	local pid name
	over_verbs
	corfu layout status
	for name in corfu-layout corfu-seq corfu-unit@1 corfu-unit@2; do
		pid=$(systemctl show -P MainPID "$name")
		[ "$(stat -c %U "/proc/$pid")" = corfu ] || wrong "$name does not run as corfu"
		grep -qE '^CapEff:\s+0+$' "/proc/$pid/status" || wrong "$name has capabilities"
		[[ $(readlink "/proc/$pid/exe") == /usr/bin/corfu ]] || wrong "$name runs $(readlink "/proc/$pid/exe")"
	done
}

over_verbs() {
	local name pid
	[[ " ${options[*]} " == *" --soft-roce "* ]] || return 0
	corfu devices --usable | grep '^rxe_d0 10.77.0.1 d0$'
	for name in corfu-seq corfu-unit@1; do
		pid=$(systemctl show -P MainPID "$name")
		grep -qE '^Max locked memory +unlimited +unlimited' "/proc/$pid/limits" || wrong "$name: memlock"
		journalctl -b -u "$name" -o cat --no-pager | grep -m 1 'provider=verbs'
	done
	[ "$(sysctl -n vm.nr_hugepages)" = 16 ] || wrong "huge pages"
}

# healthy: every daemon is, by itself, within some minutes; so that nothing here waits for a fixed time.
healthy() {
	local port end=$((SECONDS + 240))
	# shellcheck source=/dev/null
	. /usr/lib/corfu/lib.sh
	for port in 7870 7871 7880 7881; do
		until [ "$(health $port)" = ok ]; do
			[ $SECONDS -lt $end ] || wrong "the daemon at port $port: $(health $port)"
			sleep 0.3
		done
	done
}

# entries: alice, who is nobody, appends what /run/lab keeps a copy of, and reads back all that she ever did.
entries() {
	local n first
	usermod -aG corfu-client alice
	touch "$keep/entries"
	first=$(wc -l <"$keep/entries")
	for ((n = first; n < first + 50; n++)); do
		echo "entry $n of boot $(cat /proc/sys/kernel/random/boot_id)"
	done >/tmp/more
	cat /tmp/more >>"$keep/entries"
	alice corfu append - </tmp/more >/tmp/positions
	[ "$(wc -l </tmp/positions)" = 50 ] || wrong "$(wc -l </tmp/positions) positions for 50 entries"
	cat /tmp/positions >>"$keep/positions"
	read_back
}

read_back() {
	local positions
	mapfile -t positions <"$keep/positions"
	alice corfu read "${positions[*]}" >/tmp/read
	cmp /tmp/read "$keep/entries" || wrong "what was read is not what was appended"
	echo "${#positions[@]} entries are there"
}

# The software is taken away, and nothing else; it comes back to its data.
remove_and_back() {
	"$checkout/deploy/uninstall.sh"
	[ ! -e /usr/bin/corfu ] || wrong "the binary is still there"
	[[ -e /var/lib/corfu/layout && -e /etc/corfu/layout.yaml ]] || wrong "data or configuration are gone"
	[ -z "$(ls /sys/class/infiniband 2>/dev/null)" ] || wrong "the Soft-RoCE device is still there"
	setup
}

purge_script() {
	"$checkout/deploy/uninstall.sh" --purge
	machine after-purge
	same_machine before after-purge
	"$checkout/deploy/uninstall.sh" --check
	rm -f "$keep/entries" "$keep/positions"
}

# The package takes over from the script, and goes on with its configuration and data.
package_1() { dpkg -i /run/lab/one.deb && corfu version | grep -w 1.0.1; }

package_2() { dpkg -i /run/lab/two.deb && corfu version | grep -w 1.0.2; }

package_gone() {
	dpkg --remove corfu
	[[ -e /var/lib/corfu/layout && -e /etc/corfu/layout.yaml ]] || wrong "data or configuration are gone"
	dpkg --purge corfu
	# The account's user is a member of no group that is gone.
	machine after-package
	same_machine before after-package
	rm -f "$keep/entries" "$keep/positions"
}

# A package alone: the machine's options are there before it, and its installation does everything.
package_alone() {
	mkdir -p /etc/corfu
	printf '%s\n' "${options[@]}" >/etc/corfu/appliance.conf
	dpkg -i /run/lab/two.deb
}
