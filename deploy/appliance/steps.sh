# shellcheck shell=bash
# The steps of install.sh, in the order in which they are taken.

PARTS=(lib.sh options.sh certs.sh config.sh steps.sh stores.sh services.sh undo.sh)
RDMA_PACKAGES=(libibverbs1 librdmacm1 ibverbs-providers rdma-core)

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
		if [ "${DEVICE:-$name}" = "$name" ] && [[ -z $SOFT_ROCE || -n $DEVICE || $SOFT_ROCE == "$(under "$name")" ]]; then
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

# under DEVICE: the interface that a Soft-RoCE device lies on. Its address may be one of a VLAN over that.
under() { cat "/sys/class/infiniband/$1/parent" 2>/dev/null || true; }

# clear_fabric: tcp knows no TLS, and the daemons refuse it in clear between machines.
clear_fabric() {
	secured && serves && ! loopback "$ADDR" || return 0
	whole_here || die "without an RDMA device the log's data would go over the network in clear: --soft-roce NETDEV, or --insecure on a network that you trust"
	note "fabric: tcp goes in clear, so it stays on loopback: for users of this machine alone (--soft-roce NETDEV is for others)"
}

make_soft_roce() {
	local service why
	[ -e "/sys/class/net/$SOFT_ROCE" ] || die "no network interface $SOFT_ROCE (ip link lists them)"
	if ! systemd_runs; then
		change "make a Soft-RoCE device over $SOFT_ROCE" "$BINARY" devices add-rxe --netdev "$SOFT_ROCE"
		return
	fi
	reload_systemd
	service=corfu-soft-roce@$(systemd-escape "$SOFT_ROCE").service
	left_alone "$service" || enable_service "$service"
	if why=$(kept_down "$service"); then
		note "$service $why, and is not started"
	else
		start_service "$service"
	fi
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
