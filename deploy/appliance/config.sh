# shellcheck shell=bash
# The configuration files, from the options. The daemons refuse keys that they do not know, so what is written here is checked
# by their start.

# member SPEC PORT: "id: 1, control: host:port"
member() { printf 'id: %s, control: "%s"' "${1%%=*}" "$(with_port "${1#*=}" "$2")"; }

common_config() { # DIR PORT NAME, which is ROLE-NUMBER
	cat <<END
# Written by corfu-setup. A change of yours is kept; corfu-setup --force writes it anew. Restart the service after a change.
role: ${3%-*}
dir: $1
control: "$(with_port "$ADDR" "$2")"
http: "$(with_port "${METRICS:-127.0.0.1}" $(($2 + HTTP_OFFSET)))"
END
	if [ -n "$INSECURE" ]; then
		echo "insecure: true # the control plane is in clear: whoever reaches it can wipe units"
	fi
	tls_config "$3"
}

fabric_config() {
	cat <<END
fabric:
  provider: $PROVIDER
END
	if [ "$PROVIDER" = verbs ]; then
		echo "  device: $DEVICE"
	else
		echo "  addr: \"$(fabric_addr)\""
	fi
	[ -z "$HUGE_PAGES" ] || echo "  huge_pages: true"
}

# fabric_addr: of the tcp provider, which goes in clear: with certificates it stays on this machine.
fabric_addr() {
	if secured; then
		echo 127.0.0.1
	else
		echo "$ADDR"
	fi
}

layout_config() {
	local spec id
	common_config "$STATE/layout" "$LAYOUT_PORT" "layout-$ID"
	echo "id: $ID"
	if [ ${#SERVERS[@]} -gt 1 ]; then
		echo "servers:"
		for spec in "${SERVERS[@]}"; do
			id=${spec%%=*} spec=${spec#*=}
			echo "  - {id: $id, control: \"$(with_port "$spec" "$LAYOUT_PORT")\", raft: \"$(with_port "$(host_of "$spec")" "$RAFT_PORT")\"}"
		done
	fi
	cat <<END
# The log's first layout. A server that has one keeps it: later changes are made by corfu unit add, and so on.
bootstrap:
  durability: $DURABILITY
  sequencer: {$(member "$SEQ" "$SEQ_PORT")}
END
	member_list units "$UNIT_PORT" "${MEMBERS[@]}"
	member_list spares "$UNIT_PORT" "${SPARES[@]}"
	member_list standbys "$SEQ_PORT" "${STANDBYS[@]}"
	echo "  chains:"
	for spec in "${CHAINS[@]}"; do
		echo "    - [$spec]"
	done
}

member_list() { # NAME PORT SPEC...
	local spec
	[ $# -gt 2 ] || return 0
	echo "  $1:"
	for spec in "${@:3}"; do
		echo "    - {$(member "$spec" "$2")}"
	done
}

host_of() {
	case $1 in
	\[*\]:*) echo "${1%:*}" ;;
	*:*:*) echo "$1" ;;
	*) echo "${1%:*}" ;;
	esac
}

seq_config() {
	common_config "$STATE/seq" "$SEQ_PORT" "seq-$ID"
	echo "id: $ID"
	fabric_config
}

unit_config() { # NUMBER PORT STORE
	common_config "$3" "$2" "unit-$1"
	echo "id: $1"
	[ -z "$CAPACITY" ] || echo "capacity: $CAPACITY"
	fabric_config
}

# cluster_config NAME: what the commands of this machine's users go by, with the certificate NAME if there is one.
cluster_config() {
	local spec list=
	if [ -n "$CLUSTER" ]; then
		for spec in ${CLUSTER//,/ }; do
			list+="${list:+, }\"$(with_port "$spec" "$LAYOUT_PORT")\""
		done
	elif [ ${#SERVERS[@]} -gt 0 ]; then
		for spec in "${SERVERS[@]}"; do
			list+="${list:+, }\"$(with_port "${spec#*=}" "$LAYOUT_PORT")\""
		done
	elif has_role layout; then
		list="\"$(with_port "$ADDR" "$LAYOUT_PORT")\""
	fi
	cat <<END
# Written by corfu-setup: where the commands of this machine find the cluster.
role: client
layout_servers: [$list]
fabric:
  provider: $PROVIDER
END
	[ "$PROVIDER" != verbs ] || echo "  device: $DEVICE"
	[ -z "$INSECURE" ] || echo "insecure: true"
	tls_config "$1"
}
