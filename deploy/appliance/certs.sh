# shellcheck shell=bash
# The certificates of this machine: each daemon has its own, of its role, under the name by which its configuration finds it.

TLS=$ROOT_CONF/tls

# secured: does this machine speak TLS? From the first time that it was given certificates, unless somebody says --insecure.
secured() { [ -z "$INSECURE" ] && [[ -n $CERTS || -e $TLS/ca.crt ]]; }

# certificates: "NAME ROLE HOST GROUP" of each that this machine has, or must have. - for HOST: nobody dials it.
certificates() {
	local n
	! has_role layout || echo "layout-$ID layout $(dialled_at "$ID" "${SERVERS[@]}") corfu"
	! has_role seq || echo "seq-$ID seq $(dialled_at "$ID" "$SEQ" "${STANDBYS[@]}") corfu"
	if has_role unit; then
		for n in ${UNITS//,/ }; do
			echo "unit-$n unit $(dialled_at "$n" "${MEMBERS[@]}" "${SPARES[@]}") corfu"
		done
	fi
	! has_certificate client || echo "client client - corfu-client"
	! has_certificate operator || echo "operator admin - root"
}

has_certificate() { [[ -e $TLS/$1.crt || -n $CERTS && -e $CERTS/$1.crt ]]; }

# dialled_at NUMBER MEMBER...: the host under which the others know this machine's member of that number.
dialled_at() {
	local spec
	for spec in "${@:2}"; do
		if [ "${spec%%=*}" = "$1" ]; then
			spec=$(host_of "${spec#*=}")
			echo "${spec//[][]/}"
			return
		fi
	done
	echo "$ADDR"
}

# certificate_dir NAME: where it is: among the new ones, or installed; empty if it is nowhere.
certificate_dir() {
	if [ -n "$CERTS" ] && [ -e "$CERTS/$1.crt" ]; then
		echo "$CERTS"
	elif [ -e "$TLS/$1.crt" ]; then
		echo "$TLS"
	fi
}

# list_file: the authority's revocation list, the new one or the installed one; empty if there is none.
list_file() {
	local dir
	for dir in "$CERTS" "$TLS"; do
		if [ -n "$dir" ] && [ -e "$dir/ca.crl" ]; then
			echo "$dir/ca.crl"
			return
		fi
	done
}

# check_trust: everything about certificates, before anything is changed.
check_trust() {
	local name role host group dir ca said list
	if ! secured; then
		! serves || loopback "$ADDR" || [ -n "$INSECURE" ] ||
			die "$ADDR is not loopback, and the control plane would be in clear: give --certs, or --insecure on a network that you trust"
		[[ -z $METRICS || -n $INSECURE ]] || loopback "$METRICS" ||
			die "--metrics $METRICS: without certificates metrics are served on loopback alone: give --certs, or --insecure on a network that you trust"
		[ -z "$CERTS" ] || usage_error "--certs and --insecure exclude each other (options of the last time are in $ROOT_CONF/appliance.conf)"
		return 0
	fi
	[ -z "$CERTS" ] || [ -d "$CERTS" ] || die "--certs $CERTS: no such directory (corfu certs init and issue make one)"
	ca=$(certificate_dir ca)/ca.crt
	[ "$ca" != /ca.crt ] || die "--certs $CERTS: no ca.crt in it (corfu certs issue --out $CERTS puts it there)"
	list=$(list_file)
	certificates | while read -r name role host group; do
		dir=$(certificate_dir "$name")
		[ "$host" != - ] || host=
		if [ -z "$dir" ]; then
			distrust "$name" "no certificate $name.crt in ${CERTS:-$TLS}: corfu certs issue --role $role --name $name --host $host --out DIR, then --certs DIR"
		elif ! said=$("$BINARY" certs check --ca "$ca" ${list:+--crl "$list"} --role "$role" ${host:+--host "$host"} "$dir/$name.crt" 2>&1); then
			distrust "$name" "${said#corfu: }"
		fi
	done
	! has_role client || serves || has_certificate client ||
		die "no certificate client.crt in ${CERTS:-$TLS}: corfu certs issue --role client --name client --out DIR, then --certs DIR"
}

# distrust NAME TEXT: this certificate does not do. With the package's installation that is a matter of its daemon alone: one that runs is
# left as it is, since it would not come up again.
distrust() {
	[ -n "$PACKAGE" ] || die "$2"
	trouble "$2"
	DISTRUSTED+=("$1")
}

DISTRUSTED=()

# distrusted SERVICE: its certificate does not do.
distrusted() {
	local name
	for name in "${DISTRUSTED[@]}"; do
		case $1 in
		corfu-layout.service) [[ $name != layout-* ]] || return 0 ;;
		corfu-seq.service) [[ $name != seq-* ]] || return 0 ;;
		corfu-unit@*) [ "$1" != "corfu-unit@${name#unit-}.service" ] || return 0 ;;
		esac
	done
	return 1
}

install_certificates() {
	local name group dir list
	secured || return 0
	ensure_dir "$TLS" 755 root:root
	ensure_file "$TLS/ca.crt" 644 root:root <"$(certificate_dir ca)/ca.crt"
	list=$(list_file)
	[ -z "$list" ] || ensure_file "$TLS/ca.crl" 644 root:root <"$list"
	certificates | while read -r name _ _ group; do
		dir=$(certificate_dir "$name")
		[[ " ${DISTRUSTED[*]} " != *" $name "* ]] || continue
		ensure_file "$TLS/$name.key" 640 "root:$group" <"$dir/$name.key"
		ensure_file "$TLS/$name.crt" 644 root:root <"$dir/$name.crt"
	done
}

# tls_config NAME: what a configuration file says of it.
tls_config() {
	secured && has_certificate "$1" || return 0
	cat <<END
tls:
  ca: $TLS/ca.crt
  cert: $TLS/$1.crt
  key: $TLS/$1.key
END
	[ -z "$(list_file)" ] || echo "  crl: $TLS/ca.crl"
}
