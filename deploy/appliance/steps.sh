# shellcheck shell=bash
# The steps of install.sh, in the order in which they are taken.

PARTS=(lib.sh options.sh certs.sh config.sh steps.sh stores.sh undo.sh)
RDMA_PACKAGES=(libibverbs1 librdmacm1 ibverbs-providers rdma-core)
PATIENCE=${CORFU_SETUP_PATIENCE:-120} # seconds for a service to come up

# in_place: this script is part of what was installed, by dpkg or by itself.
in_place() { [ "$lib" = /usr/lib/corfu ]; }

# find_software: the binary that is installed, or is to be.
find_software() {
	if in_place; then
		BINARY=/usr/bin/corfu
		return
	fi
	if [ "$(dpkg-query -W -f '${db:Status-Status}' corfu 2>/dev/null)" = installed ]; then
		die "corfu is installed as a package: use corfu-setup, or apt-get remove corfu first"
	fi
	BINARY=${BINARY:-$here/../bin/corfu}
	[ -x "$BINARY" ] || die "no corfu at $BINARY: make build, or --binary PATH"
}

install_software() {
	local from part
	if in_place; then
		ok "$($BINARY version), as installed"
		return
	fi
	ensure_copy "$BINARY" /usr/bin/corfu 755
	for from in "$lib"/systemd/*; do
		ensure_copy "$from" "/usr/lib/systemd/system/$(basename "$from")" 644
	done
	for part in "${PARTS[@]}"; do
		ensure_copy "$lib/$part" "/usr/lib/corfu/$part" 644
	done
	ensure_copy "$here/install.sh" /usr/lib/corfu/install.sh 755
	ensure_copy "$here/uninstall.sh" /usr/lib/corfu/uninstall.sh 755
	ensure_link ../lib/corfu/install.sh /usr/sbin/corfu-setup
	ensure_copy "$here/../docs/install.md" /usr/share/doc/corfu/install.md 644
}

install_accounts() {
	ensure_group corfu
	ensure_group corfu-client
	ensure_user corfu
	ensure_dir "$ROOT_CONF" 755 root:root
	ensure_dir "$STATE" 755 root:root
}

install_modules() {
	local module wanted=()
	[ "$PROVIDER" != tcp ] || return 0
	if [ -n "$SOFT_ROCE" ]; then
		wanted=(ib_uverbs rdma_ucm rdma_rxe)
	elif compgen -G '/sys/class/infiniband/*' >/dev/null || [ "$PROVIDER" = verbs ]; then
		wanted=(ib_uverbs rdma_ucm)
	else
		return 0
	fi
	require_packages "${RDMA_PACKAGES[@]}"
	for module in "${wanted[@]}"; do
		ensure_module "$module"
	done
	printf '%s\n' "# Written by corfu-setup." "${wanted[@]}" | ensure_file /etc/modules-load.d/corfu.conf 644 root:root
}

# require_packages: user space for RDMA. As a package we depend on it.
require_packages() {
	local package missing=()
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
	done
	if [ ${#missing[@]} -eq 0 ]; then
		ok "packages $*"
	else
		change "apt-get install ${missing[*]}" apt_install "${missing[@]}"
	fi
}

apt_install() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get -o DPkg::Lock::Timeout=300 update -qq && apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@"
}

# install_fabric finds the RDMA device, makes a Soft-RoCE one before that where it is asked to, and sets PROVIDER, DEVICE and NETDEV.
install_fabric() {
	local found name netdev
	NETDEV=
	if [ "$PROVIDER" = tcp ]; then
		[ -z "$SOFT_ROCE$DEVICE" ] || usage_error "--provider tcp uses no device"
		ok "fabric: tcp, as asked for"
		clear_fabric
		return
	fi
	[ -z "$SOFT_ROCE" ] || make_soft_roce
	while read -r name _ netdev; do
		if [ "${DEVICE:-$name}" = "$name" ] && [[ -z $SOFT_ROCE || -n $DEVICE || $SOFT_ROCE == "$netdev" ]]; then
			found=1 PROVIDER=verbs DEVICE=$name NETDEV=$netdev
			break
		fi
	done < <("$BINARY" devices --usable || true)
	if [ -n "${found-}" ]; then
		ok "fabric: verbs, on $DEVICE ($NETDEV)"
	elif [ "$MODE" != apply ] && [ -n "$SOFT_ROCE" ]; then
		PROVIDER=verbs DEVICE=${DEVICE:-rxe_$SOFT_ROCE} NETDEV=$SOFT_ROCE
		note "fabric: verbs, on $DEVICE once it is there"
	elif [ -n "$DEVICE$SOFT_ROCE" ] || [ "$PROVIDER" = verbs ]; then
		die "no usable RDMA device${DEVICE:+ $DEVICE}${SOFT_ROCE:+ over $SOFT_ROCE} (corfu devices says why; it must have an IP address and be up)"
	else
		PROVIDER=tcp
		ok "fabric: tcp, since this machine has no usable RDMA device"
	fi
	[ "$NETDEV" = - ] && NETDEV=
	if [ "$PROVIDER" = tcp ]; then
		clear_fabric
	else
		arp_for_rdma
	fi
}

# clear_fabric: tcp knows no TLS, and the daemons refuse it in clear between machines.
clear_fabric() {
	secured && serves && ! loopback "$ADDR" || return 0
	whole_here || die "without an RDMA device the log's data would go over the network in clear: --soft-roce NETDEV, or --insecure on a network that you trust"
	note "fabric: tcp goes in clear, so it stays on loopback: for users of this machine alone (--soft-roce NETDEV is for others)"
}

make_soft_roce() {
	[ -e "/sys/class/net/$SOFT_ROCE" ] || die "no network interface $SOFT_ROCE (ip link lists them)"
	if ! systemd_runs; then
		change "make a Soft-RoCE device over $SOFT_ROCE" "$BINARY" devices add-rxe --netdev "$SOFT_ROCE"
		return
	fi
	reload_systemd
	enable_service "corfu-soft-roce@$(systemd-escape "$SOFT_ROCE").service"
	start_service "corfu-soft-roce@$(systemd-escape "$SOFT_ROCE").service"
}

# arp_for_rdma: where a machine has two interfaces in one network, either answers for the other's address unless told not to
# (arp_ignore and arp_announce in the kernel's Documentation/networking/ip-sysctl.rst), and RDMA traffic goes out at the wrong card.
arp_for_rdma() {
	local key
	[ -n "$NETDEV" ] && [ -e "/proc/sys/net/ipv4/conf/$NETDEV" ] || return 0
	for key in arp_ignore=1 arp_announce=2; do
		ensure_sysctl "net/ipv4/conf/$NETDEV/${key%=*}" "${key#*=}"
	done
}

install_limits() {
	local line
	{
		echo "# Written by corfu-setup: members of this group may register memory for RDMA. The daemons have theirs from systemd."
		echo "@corfu-client - memlock unlimited"
	} | ensure_file /etc/security/limits.d/60-corfu.conf 644 root:root
	if [ -n "$HUGE_PAGES" ]; then
		ensure_sysctl vm/nr_hugepages "$HUGE_PAGES"
		[ "$MODE" != apply ] || [ "$(</proc/sys/vm/nr_hugepages)" = "$HUGE_PAGES" ] ||
			die "the kernel found only $(</proc/sys/vm/nr_hugepages) of $HUGE_PAGES huge pages: memory is too small or in pieces; fewer, or reboot"
	fi
	{
		echo "# Written by corfu-setup."
		[ -z "$HUGE_PAGES" ] || echo "vm/nr_hugepages = $HUGE_PAGES"
		if [ "$PROVIDER" = verbs ] && [ -n "$NETDEV" ]; then
			for line in arp_ignore=1 arp_announce=2; do
				echo "net/ipv4/conf/$NETDEV/${line%=*} = ${line#*=}"
			done
		fi
	} | ensure_file /etc/sysctl.d/60-corfu.conf 644 root:root
}

install_config() {
	local n i=0
	if has_role layout; then
		layout_config | ensure_config "$ROOT_CONF/layout.yaml" 640 root:corfu
	fi
	if has_role seq; then
		seq_config | ensure_config "$ROOT_CONF/seq.yaml" 640 root:corfu
	fi
	if has_role unit; then
		for n in ${UNITS//,/ }; do
			unit_config "$n" $((UNIT_PORT + i)) "$(store_of "$n" "$i")" | ensure_config "$ROOT_CONF/unit-$n.yaml" 640 root:corfu
			i=$((i + 1))
		done
	fi
	cluster_config client | ensure_config "$ROOT_CONF/client.yaml" 644 root:root
	if secured && has_certificate operator; then
		cluster_config operator | ensure_config "$ROOT_CONF/operator.yaml" 600 root:root
	fi
}

# remember_options: an upgrade of the package, and corfu-setup --again, do the same again.
remember_options() {
	local i
	# /dev/nvme0n1 may be another drive after the next boot.
	for i in "${!SAVED[@]}"; do
		[ "${SAVED[i]}" != --store ] || SAVED[i + 1]=$(stable_stores "${SAVED[i + 1]}")
	done
	{
		echo "# Written by corfu-setup: the options that this machine was set up with, one word a line."
		printf '%s\n' "${SAVED[@]}"
	} | ensure_file "$ROOT_CONF/appliance.conf" 644 root:root
}

# services: every service of this machine, in the order of a start.
services() {
	local n
	! has_role layout || echo corfu-layout.service
	! has_role seq || echo corfu-seq.service
	has_role unit || return 0
	for n in ${UNITS//,/ }; do
		echo "corfu-unit@$n.service"
	done
}

install_services() {
	local service
	serves || return 0
	if ! systemd_runs; then
		[ -n "$NO_START" ] || [ "$MODE" != apply ] ||
			die "systemd does not run here, so nothing can be started (--no-start writes files only)"
		NO_START=1
	else
		reload_systemd
	fi
	for service in $(services); do
		enable_service "$service"
	done
}

reload_systemd() {
	[ "$MODE" != apply ] || systemctl daemon-reload
}

enable_service() {
	if systemctl is-enabled -q "$1" 2>/dev/null; then
		ok "$1 starts at boot"
	else
		change "start $1 at every boot" systemctl -q enable "$1"
	fi
	[ "$MODE" != apply ] || take_note services "$1"
}

start_services() {
	local service
	for service in $(services); do
		without_drive "$service" || start_service "$service"
	done
}

# without_drive SERVICE: its unit's drive is not there, of which install_stores has told.
without_drive() {
	local n i=0
	for n in ${UNITS//,/ }; do
		[ "$1" != "corfu-unit@$n.service" ] || ! gone "$(store_of "$n" "$i")" || return 0
		i=$((i + 1))
	done
	return 1
}

# start_service: start it, or restart it if its software or configuration is younger than it.
start_service() {
	local since file
	if ! systemctl is-active -q "$1"; then
		change "start $1" start_or_explain start "$1"
		return
	fi
	case $1 in corfu-soft-roce@*) # its device does not go away under running daemons: the kernel would wait for them
		ok "$1 runs"
		return
		;;
	esac
	# Of its process, to the microsecond: what is replaced in the second of a start is newer than it.
	since=$(date -d "$(systemctl show --timestamp=us+utc -P ExecMainStartTimestamp "$1")" +%s%N)
	for file in /usr/bin/corfu $(service_files "$1"); do
		# The time of its arrival here: what dpkg unpacks is older.
		if [ -e "$file" ] && [ "$(stat -c %.9Z "$file" | tr -d .)" -gt "$since" ]; then
			change "restart $1 ($file is newer)" start_or_explain restart "$1"
			return
		fi
	done
	ok "$1 runs"
}

service_files() {
	local name=${1%.service} drop
	case $name in
	corfu-unit@*) echo "/usr/lib/systemd/system/corfu-unit@.service $ROOT_CONF/unit-${name#*@}.yaml" ;;
	*) echo "/usr/lib/systemd/system/$1 $ROOT_CONF/${name#corfu-}.yaml" ;;
	esac
	for drop in "/etc/systemd/system/$1.d"/*; do
		[ ! -e "$drop" ] || echo "$drop"
	done
}

start_or_explain() {
	systemctl "$1" "$2" && return
	journalctl -u "$2" -n 5 --no-pager -o cat >&2 || true
	return 1
}

# verify_services: each must be up, and its health is said. Only where the whole cluster is here can it be asked to be good: elsewhere
# the other machines may not be there yet, and a spare waits.
verify_services() {
	local service port at said end
	[ "$MODE" = apply ] || return 0
	end=$((SECONDS + PATIENCE))
	for service in $(services); do
		! without_drive "$service" || continue
		port=$(http_port "$service")
		at=$(http_of "$service")
		if [ "$at" != "127.0.0.1:$port" ]; then
			ok "$service is up (its health is told at ${at:-no port})"
			continue
		fi
		while said=$(health "$port") && [ "$said" != ok ] && [ $SECONDS -lt $end ] && whole_here; do
			sleep 0.5
		done
		case $said in
		ok) ok "$service is healthy" ;;
		'') die "$service does not answer at port $port (journalctl -u $service)" ;;
		*)
			! whole_here || die "$service is not healthy: $said (journalctl -u $service)"
			note "$service is up and waits: $said"
			;;
		esac
	done
	# A build that has the doctor is asked; its findings are the operator's to read.
	if "$BINARY" doctor --help >/dev/null 2>&1; then
		# The device was tried when the machine was set up; on an upgrade the daemons are at work on it.
		"$BINARY" doctor ${AGAIN:+--live=false} || note "corfu doctor found something: see above"
	fi
}

whole_here() { [ ${#SERVERS[@]} -eq 0 ] && has_role layout && has_role seq && has_role unit; }

# http_of SERVICE: where its configuration says that it tells its health: an operator may have put that where a Prometheus elsewhere reaches it.
http_of() {
	local file=${1%.service}
	file=$ROOT_CONF/${file#corfu-}.yaml
	sed -En 's/^http:[[:space:]]*"?([^"[:space:]]*).*/\1/p' "${file/@/-}"
}

http_port() {
	local n i=0
	case $1 in
	corfu-layout.service) echo $((LAYOUT_PORT + HTTP_OFFSET)) ;;
	corfu-seq.service) echo $((SEQ_PORT + HTTP_OFFSET)) ;;
	*)
		for n in ${UNITS//,/ }; do
			[ "$1" != "corfu-unit@$n.service" ] || echo $((UNIT_PORT + HTTP_OFFSET + i))
			i=$((i + 1))
		done
		;;
	esac
}
