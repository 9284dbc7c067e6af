# shellcheck shell=bash
# The configuration files, from the options. The daemons refuse keys that they do not know, so what is written here is checked
# by their start.

# member SPEC PORT: "id: 1, control: host:port"
member() { printf 'id: %s, control: "%s"' "${1%%=*}" "$(with_port "${1#*=}" "$2")"; }

common_config() { # DIR PORT
	cat <<END
# Written by corfu-setup. A change of yours is kept; corfu-setup --force writes it anew. Restart the service after a change.
dir: $1
control: "$(with_port "$ADDR" "$2")"
http: "127.0.0.1:$(($2 + HTTP_OFFSET))"
END
	if [ -n "$INSECURE" ]; then
		echo "insecure: true # the control plane is in clear: whoever reaches it can wipe units"
	fi
	tls_config
}

# tls_config: what the daemons say to certificates.
tls_config() {
	if [ -n "$CA" ] || has_certificates; then
		cat <<END
tls:
  ca: $ROOT_CONF/tls/ca.crt
  cert: $ROOT_CONF/tls/node.crt
  key: $ROOT_CONF/tls/node.key
END
	fi
}

fabric_config() {
	cat <<END
fabric:
  provider: $PROVIDER
END
	if [ "$PROVIDER" = verbs ]; then
		echo "  device: $DEVICE"
	else
		echo "  addr: \"$ADDR\""
	fi
	[ -z "$HUGE_PAGES" ] || echo "  huge_pages: true"
}

layout_config() {
	local spec id
	common_config "$STATE/layout" "$LAYOUT_PORT"
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
	common_config "$STATE/seq" "$SEQ_PORT"
	echo "id: $ID"
	fabric_config
}

unit_config() { # NUMBER PORT STORE
	common_config "$3" "$2"
	echo "id: $1"
	[ -z "$CAPACITY" ] || echo "capacity: $CAPACITY"
	fabric_config
}

# cluster_config: what the commands of this machine's users go by.
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
}
