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
	# In a container what is not its network's is the host's, which others change meanwhile.
	local own='^(vm\.nr_hugepages|vm\.overcommit|kernel\.sem|net\.ipv4\.conf)'
	! systemd-detect-virt -q --container || own='^net\.ipv4\.conf'
	sysctl -a 2>/dev/null | grep -E "$own" | sort >"$keep/$1/sysctl"
	ls /sys/class/infiniband 2>/dev/null >"$keep/$1/rdma" || true
	systemctl list-units --all --no-legend --no-pager --plain 'corfu*' >"$keep/$1/running"
}

same_machine() { # NAME NAME
	diff -r "$keep/$1" "$keep/$2" || wrong "the machine is not as it was"
}

before() {
	useradd --create-home alice
	useradd --create-home bob
	machine before
}

# Neither looking nor trying changes anything.
dry() {
	"$checkout/deploy/install.sh" --dry-run "${options[@]}" >/tmp/dry
	refused '--store /srv/a,/srv/b c: paths of' --store '/srv/a,/srv/b c'
	! grep -q '^do ' /tmp/dry || wrong "a dry run did something"
	! "$checkout/deploy/install.sh" --check "${options[@]}" >/tmp/check 2>&1 || wrong "--check finds nothing to do"
	machine after-dry
	same_machine before after-dry
}

# disk_full: what does not fit is not put in place of what was there, and is not said to be done.
disk_full() {
	mkdir -p /tmp/small
	mount -t tmpfs -o size=1m tmpfs /tmp/small
	echo before >/tmp/small/file
	(
		# shellcheck source=/dev/null
		. "$checkout/deploy/appliance/lib.sh"
		# shellcheck disable=SC2034 # it is the library's
		NOTES=/tmp/small/notes
		! (change "write a file" copy_noted "$checkout/bin/corfu" /tmp/small/file 755) || wrong "a full disk goes unnoticed"
	)
	[ "$(cat /tmp/small/file)" = before ] || wrong "a file was replaced by a part of another"
	[ ! -e /tmp/small/file.corfu-new ] || wrong "a part of a file is left"
	umount /tmp/small
	rmdir /tmp/small
}

# options_once: what is noted for the next time has each option once, the last; of members by their numbers.
options_once() {
	local noted
	noted=$(
		# shellcheck source=/dev/null
		. "$checkout/deploy/appliance/lib.sh"
		# shellcheck source=/dev/null
		. "$checkout/deploy/appliance/options.sh"
		parse_options --role unit --unit 1=a --unit 2=b --unit 1=c --insecure --insecure --addr 1.1.1.1 --addr 1.1.1.2 --chain 1,2 --chain 3 --chain 1,2
		echo "${SAVED[*]} / ${MEMBERS[*]} / $ADDR / ${CHAINS[*]}"
	)
	[ "$noted" = '--role unit --unit 1=c --unit 2=b --insecure --addr 1.1.1.2 --chain 1,2 --chain 3 / 1=c 2=b / 1.1.1.2 / 1,2 3' ] || wrong "$noted"
}

# refused LINE OPTION...: the installer says so, in this one line, and has done nothing.
refused() {
	local line=$1
	shift
	! "$checkout/deploy/install.sh" "${options[@]}" "$@" >/tmp/refused 2>&1 || wrong "this was taken: $*"
	cat /tmp/refused
	[[ $(wc -l </tmp/refused) -eq 1 && $(</tmp/refused) =~ ^install.sh:\ .*$line ]] || wrong "that is not one line about: $line"
}

# mistrust: certificates that do not do are refused before anything is changed.
mistrust() {
	[[ " ${options[*]} " == *" --certs "* ]] || return 0
	local given=/run/lab/certs dir=/tmp/certs
	mistake() { rm -rf $dir && cp -r $given $dir && chmod 600 $dir/*.key; }
	mistake && rm $dir/unit-2.crt
	refused "no certificate unit-2.crt in $dir: corfu certs issue --role unit --name unit-2 --host 10.77.0.1" --certs $dir
	mistake && cp $dir/seq-1.crt $dir/unit-2.crt && cp $dir/seq-1.key $dir/unit-2.key
	refused 'unit-2.crt is the certificate of role seq: this takes one of role unit' --certs $dir
	mistake && cp $dir/unit-1.key $dir/unit-2.key
	refused 'unit-2.crt, .*private key does not match' --certs $dir
	mistake && mv $dir/over/unit-1.crt $dir/over/unit-1.key $dir/
	refused 'unit-1.crt ended at' --certs $dir
	mistake && mv $dir/elsewhere/layout-1.crt $dir/elsewhere/layout-1.key $dir/
	refused 'layout-1.crt is for the hosts 10.0.0.9, and others dial 10.77.0.1' --certs $dir
	mistake && mv $dir/revoked/unit-1.crt $dir/revoked/unit-1.key $dir/revoked/ca.crl $dir/
	refused 'unit-1.crt is revoked' --certs $dir
	mistake && chmod 644 $dir/unit-1.key
	refused 'unit-1.key has mode 0644' --certs $dir
	mistake && rm $dir/ca.crt
	refused 'no ca.crt in it' --certs $dir
	refused '/nowhere: no such directory' --certs /nowhere
	machine after-mistrust
	same_machine before after-mistrust
}

# trusted: who has a certificate may do what it is for, and its key is for nobody else.
trusted() {
	[[ " ${options[*]} " == *" --certs "* ]] || return 0
	local serial pid
	(cd /etc/corfu/tls && stat -c '%a %U:%G %n' -- *.key) | tee /tmp/keys
	diff /tmp/keys - <<-'END'
		640 root:corfu-client client.key
		640 root:corfu layout-1.key
		640 root:root operator.key
		640 root:corfu seq-1.key
		640 root:corfu unit-1.key
		640 root:corfu unit-2.key
	END
	grep 'crl: /etc/corfu/tls/ca.crl' /etc/corfu/unit-1.yaml || wrong "the daemons go by no revocation list"
	! runuser -l bob -c 'corfu append nobody' >/tmp/nobody 2>&1 || wrong "bob, who is in no group, appends"
	grep 'client.key: permission denied.*corfu-client' /tmp/nobody
	! corfu --config /etc/corfu/client.yaml layout reconfigure >/tmp/client 2>&1 || wrong "the users' certificate reconfigures"
	cat /tmp/client
	corfu layout reconfigure
	! alice corfu --config /etc/corfu/operator.yaml layout show 2>/dev/null || wrong "alice has the operator's key"
	# New certificates are taken over by daemons that run on. (Unit 1 may be due to be restarted: its file was edited.)
	pid=$(systemctl show -P MainPID corfu-unit@2)
	serial=$(serial_of /etc/corfu/tls/unit-2.crt)
	"$checkout/deploy/install.sh" "${options[@]}" --certs /run/lab/certs/renewed | grep '^do '
	[ "$(serial_of /etc/corfu/tls/unit-2.crt)" != "$serial" ] || wrong "the new certificate is not there"
	[ "$(systemctl show -P MainPID corfu-unit@2)" = "$pid" ] || wrong "unit 2 was restarted for a certificate"
	healthy
	corfu layout status
}

serial_of() { corfu -o json certs show "$1" | grep serial; }

# setup: with whatever root's environment has.
setup() {
	(umask 077 && MODE=production "$checkout/deploy/install.sh" "${options[@]}")
	[ "$(stat -c %a /usr/lib/corfu)" = 755 ] || wrong "root's umask decides who may read what is installed"
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

# elsewhere: a daemon that tells its health where a Prometheus of another machine reaches it is no reason for the next run to fail.
elsewhere() {
	"$checkout/deploy/install.sh" "${options[@]}" --metrics 10.77.0.1 | grep 'corfu-unit@1.service is up (its health is told at 10.77.0.1:7880)'
	grep -x 'http: "10.77.0.1:7880"' /etc/corfu/unit-1.yaml
	"$checkout/deploy/install.sh" "${options[@]}" | grep 'corfu-unit@1.service is healthy'
}

# The cluster runs, over verbs in the VM, as corfu, with what the services were promised.
running() {
	local pid name
	over_verbs
	corfu layout status
	systemctl is-active corfu-disk-health.timer
	for name in $(daemons); do
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

# crash: a daemon that panics is started again. SIGQUIT ends a Go program as a panic does.
crash() {
	local name
	for name in $(daemons); do
		systemctl kill --kill-who=main -s QUIT "$name"
		until [ "$(systemctl show -P NRestarts "$name")" -gt 0 ]; do
			[ "$(systemctl show -P ActiveState "$name")" != failed ] || wrong "$name crashed, and stays down"
			sleep 0.2
		done
	done
}

# doctor: this machine, its device, and the running daemon by its configuration; whatever fails there fails here.
doctor() {
	corfu doctor --config /etc/corfu/unit-1.yaml --service corfu-unit@1 | tee /tmp/doctor
	grep ' 0 failures$' /tmp/doctor
}

# idle: what the daemons take of a processor while nobody asks them for anything. An emulated processor, whose timers and system calls are
# slow and which the host's neighbours slow down further, says little: there it is only told.
idle() {
	local name pid began took all=0
	declare -A before
	ticks() { # PID: processor time in hundredths of a second
		awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"
	}
	sleep 5
	began=${EPOCHREALTIME/./}
	for name in $(daemons); do before[$name]=$(ticks "$(systemctl show -P MainPID "$name")"); done
	sleep 10
	for name in $(daemons); do
		pid=$(systemctl show -P MainPID "$name")
		took=$((($(ticks "$pid") - before[$name]) * 1000000 / (${EPOCHREALTIME/./} - began)))
		all=$((all + took))
		echo "$name: $took % of a processor, idle"
	done
	echo "idle: all daemons together $all % of a processor"
	[[ " ${options[*]} " == *" --soft-roce "* || $all -lt 80 ]] || wrong "idle daemons are busy" # one that spins takes 100; 5 to 30 are usual, by how dear timers are here
}

daemons() { echo corfu-layout corfu-seq corfu-unit@1 corfu-unit@2; }

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

# purge_mounted: units often have a file system of their own; removing takes its contents, and not itself.
purge_mounted() {
	mkdir -p /var/lib/corfu/unit-2
	mount -t tmpfs tmpfs /var/lib/corfu/unit-2
	setup
	dpkg -i /run/lab/one.deb
	dpkg --purge corfu
	! getent passwd corfu || wrong "the user is still there"
	[ -z "$(find /var/lib/corfu ! -type d)" ] || wrong "data are still there"
	umount /var/lib/corfu/unit-2
	rmdir /var/lib/corfu/unit-2 /var/lib/corfu
	machine after-mounted
	same_machine before after-mounted
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

# A package alone: the machine's options and certificates are there before it, and its installation does everything.
package_alone() {
	mkdir -p /etc/corfu/tls
	cp /run/lab/certs/*.crt /run/lab/certs/*.key /etc/corfu/tls/
	printf '%s\n' "${options[@]}" | sed '/^--certs$/,+1d' >/etc/corfu/appliance.conf
	(umask 077 && MODE=production dpkg -i /run/lab/two.deb)
}

# installs LINE...: dpkg installs the package whatever is wrong with a daemon, leaves nothing half configured, and says each line.
installs() {
	local line
	CORFU_SETUP_PATIENCE=20 dpkg -i /run/lab/two.deb >/tmp/installs 2>&1 || { cat /tmp/installs && wrong "dpkg -i ends with $?"; }
	dpkg -s corfu | grep -x 'Status: install ok installed' >/dev/null || wrong "$(dpkg -s corfu | grep ^Status)"
	for line in "$@"; do
		grep -E "$line" /tmp/installs || { cat /tmp/installs && wrong "this was not said: $line"; }
	done
}

# mended: the operator's run after that finds everything well.
mended() {
	systemctl reset-failed
	corfu-setup --again >/tmp/mended || { cat /tmp/mended && wrong "corfu-setup --again fails"; }
	healthy
}

# sick: a daemon that cannot start does not keep dpkg from coming to its end, nor the other daemons from the new software.
sick() {
	local pid started
	local said='^corfu: the package is installed, but this machine is not as it should be'
	started=$(systemctl show -P ExecMainStartTimestampMonotonic corfu-unit@2)
	echo 'scrub_rat: 1MiB' >>/etc/corfu/unit-1.yaml
	installs "$said" 'scrub_rat' '^WRONG    could not do this: restart corfu-unit@1.service' '^do       restart corfu-unit@2.service'
	! systemctl is-active -q corfu-unit@1 || wrong "unit 1 runs with a key that there is not"
	[ "$(systemctl show -P ExecMainStartTimestampMonotonic corfu-unit@2)" -gt "$started" ] || wrong "unit 2 runs on with the old software"
	! corfu-setup --again >/tmp/again 2>&1 || wrong "the operator's run says that all is well"
	grep '^corfu-setup: could not do this: start corfu-unit@1.service$' /tmp/again
	sed -i '/^scrub_rat/d' /etc/corfu/unit-1.yaml
	mended

	# A certificate that ended: its daemon runs on as it is, since it would not come up again.
	cp -p /etc/corfu/tls/unit-1.crt /etc/corfu/tls/unit-1.key /tmp/
	pid=$(systemctl show -P MainPID corfu-unit@1)
	cat /run/lab/certs/over/unit-1.crt >/etc/corfu/tls/unit-1.crt
	cat /run/lab/certs/over/unit-1.key >/etc/corfu/tls/unit-1.key
	installs "$said" '^WRONG    .*unit-1.crt ended at' '^do       restart corfu-unit@2.service'
	[ "$(systemctl show -P MainPID corfu-unit@1)" = "$pid" ] || wrong "unit 1 was restarted with a certificate that ended"
	cat /tmp/unit-1.crt >/etc/corfu/tls/unit-1.crt
	cat /tmp/unit-1.key >/etc/corfu/tls/unit-1.key
	mended

	systemctl stop corfu-unit@1
	mv /var/lib/corfu/unit-1 /var/lib/corfu/was
	mkdir /var/lib/corfu/unit-1
	chown corfu: /var/lib/corfu/unit-1
	mount -t tmpfs -o ro,size=1m tmpfs /var/lib/corfu/unit-1
	systemctl start --no-block corfu-unit@1
	until [ "$(systemctl show -P NRestarts corfu-unit@1)" -gt 0 ] || systemctl is-failed -q corfu-unit@1; do sleep 0.2; done
	installs "$said" '^WRONG    could not do this: (re)?start corfu-unit@1.service'
	umount /var/lib/corfu/unit-1
	rmdir /var/lib/corfu/unit-1
	mv /var/lib/corfu/was /var/lib/corfu/unit-1
	mended
}

# decided: the package's installation changes nothing that the operator decided of a service.
decided() {
	local state
	states() { echo "$(systemctl is-enabled "$1"), $(systemctl is-active "$1")" || true; }
	systemctl disable -q --now corfu-seq
	systemctl stop corfu-unit@1 corfu-unit@2
	systemctl mask -q corfu-unit@2
	installs 'corfu-seq.service is disabled, and is not started' 'corfu-unit@1.service was stopped, and is not started' \
		'corfu-unit@2.service is masked, and is not started' '^do       restart corfu-layout.service'
	for state in 'corfu-layout enabled, active' 'corfu-seq disabled, inactive' 'corfu-unit@1 enabled, inactive' 'corfu-unit@2 masked, inactive'; do
		[ "${state%% *} $(states "${state%% *}")" = "$state" ] || wrong "${state%% *} is $(states "${state%% *}"), it was ${state#* }"
	done
	# Nor where it is taken away first, and is installed again.
	dpkg --remove corfu
	installs 'corfu-seq.service was disabled when corfu was removed' 'corfu-unit@2.service is masked|corfu-unit@2.service was disabled'
	for state in 'corfu-layout enabled, active' 'corfu-seq disabled, inactive' 'corfu-unit@1 enabled, active' 'corfu-unit@2 masked, inactive'; do
		[ "${state%% *} $(states "${state%% *}")" = "$state" ] || wrong "${state%% *} is $(states "${state%% *}"), it should be ${state#* }"
	done
	# The operator's own run says what it cannot do, and does the rest.
	! corfu-setup --again >/tmp/again 2>&1 || wrong "a service that is masked goes unnoticed"
	grep '^corfu-setup: corfu-unit@2.service is masked' /tmp/again
	systemctl is-active corfu-seq
	systemctl unmask -q corfu-unit@2
	mended
}

# retired: what a machine no longer is does not go on running, nor comes back at the next boot; its data stay.
retired() {
	corfu-setup --again --units 1 --units 1,2 >/dev/null
	corfu-setup --again --units 1 --store /var/lib/corfu/first | grep '^do       stop corfu-unit@2.service'
	[ "$(systemctl is-enabled corfu-unit@2)" = disabled ] || wrong "unit 2 comes back at the next boot"
	! systemctl is-active -q corfu-unit@2 || wrong "unit 2 runs on"
	[ -e /var/lib/corfu/unit-2 ] || wrong "the data of unit 2 are gone"
	[ "$(grep -cx -- --units /etc/corfu/appliance.conf)" = 1 ] || { cat /etc/corfu/appliance.conf && wrong "--units was noted twice"; }
	corfu-setup --again --units 1,2 --store /var/lib/corfu/first, >/dev/null
	mended
}
