# shellcheck shell=bash
# The options of install.sh, and what they mean together.

LAYOUT_PORT=7770
RAFT_PORT=7772
SEQ_PORT=7771
UNIT_PORT=7780 # of a machine's first unit; the others follow
HTTP_OFFSET=100

usage() {
	cat <<'END'
Usage: install.sh --role ROLE[,ROLE...] [OPTION...]     (as a package: corfu-setup ...)

Roles: layout, seq, unit, client; all is a whole cluster on this machine (layout server, sequencer, units 1 and 2).

This machine
  --addr IP              address that the other machines reach this one at (default with all: 127.0.0.1)
  --id N                 number of this machine's layout server and sequencer, and of its unit (default 1)
  --units N,N            numbers of the units here (default: --id; with all: 1,2); the k-th listens on port 7780+k, from 0
  --store PATH,PATH      where they keep everything: a directory, or a block device (default /var/lib/corfu/unit-N)
  --capacity SIZE        how much each may keep, as in 500GiB
  --device NAME          RDMA device (default: the first usable one; corfu devices lists them)
  --provider NAME        verbs or tcp (default: verbs if there is a device, else tcp)
  --soft-roce NETDEV     make a Soft-RoCE device over this interface, now and at each boot
  --huge-pages N         set N pages of 2 MiB aside for registered memory, and use them
  --metrics IP           where the daemons serve metrics and health (default 127.0.0.1, in clear); elsewhere with TLS, for a Prometheus
                         that has a certificate of the role monitor

The cluster; the same on every machine. HOST is an address; ports are only named where they are not the usual ones
  --server N=HOST        a layout server; once for each of one, three, five or seven
  --seq N=HOST[:PORT]    the sequencer            --standby N=HOST[:PORT]  one that takes over
  --unit N=HOST[:PORT]   a unit                   --spare N=HOST[:PORT]    one that takes over
  --chain N,N            units of a chain, head first
  --durability NAME      flash (default), or memory
  --cluster HOST,HOST    layout servers, for a machine that needs no more of the cluster (unit, seq, client)

Trust
  --certs DIR            certificates and keys as corfu certs makes them, of which this machine's are copied to /etc/corfu/tls:
                         ca.crt, ca.crl if there is one, layout-N, seq-N, unit-N, and for users client and, for root, operator (.crt and
                         .key each)
  --insecure             the control plane in clear, on a network that you trust; without certificates only loopback goes

How
  --again                with the options of the last time, and those given here
  --check                change nothing, say what differs; status 1 if anything does
  --dry-run              change nothing, say what would be done
  --force                write configuration anew even where it was changed by hand
  --no-start             do not start services
  --package              as the package's installation does: --again, with services left disabled, masked or stopped as they are
  --binary PATH          the corfu to install (default: bin/corfu beside deploy; make build)
END
}

ROLES='' ADDR='' ID='' UNITS='' STORES='' CAPACITY='' DEVICE='' PROVIDER='' SOFT_ROCE='' HUGE_PAGES='' DURABILITY=flash
CLUSTER='' CERTS='' INSECURE='' AGAIN='' PACKAGE='' FORCE='' NO_START='' BINARY='' METRICS=''
SERVERS=() SEQ='' STANDBYS=() MEMBERS=() SPARES=() CHAINS=()
SAVED=() # the options that describe the machine, as they were given: they are replayed when the package is upgraded

parse_options() {
	local option replay=() i=0
	if [[ " $* " == *" --again "* || " $* " == *" --package "* ]]; then
		[ -r "$ROOT_CONF/appliance.conf" ] || die "no $ROOT_CONF/appliance.conf yet: run $ME --role ... first"
		mapfile -t replay < <(grep -v '^#' "$ROOT_CONF/appliance.conf")
		set -- "${replay[@]}" "$@"
	fi
	while [ $# -gt 0 ]; do
		option=$1
		case $option in
		-h | --help)
			usage
			exit 0
			;;
		--again) AGAIN=1 ;;
		--package) AGAIN=1 PACKAGE=1 ;;
		--check) MODE=check ;;
		--dry-run) MODE=dry-run ;;
		--force) FORCE=1 ;;
		--no-start) NO_START=1 ;;
		--insecure) INSECURE=1 && save_option --insecure ;;
		--role | --addr | --id | --units | --store | --capacity | --device | --provider | --soft-roce | --huge-pages | --metrics | --server | \
			--seq | --standby | --unit | --spare | --chain | --durability | --cluster | --certs | --binary)
			[ $# -ge 2 ] || usage_error "$option needs a value"
			case $option in
			--binary) BINARY=$2 ;;
			--certs) CERTS=${2%/} ;;
			*) save_option "$option" "$2" ;;
			esac
			shift
			;;
		*) usage_error "unknown option $option" ;;
		esac
		shift
	done
	while [ $i -lt ${#SAVED[@]} ]; do
		[ "${SAVED[i]}" = --insecure ] || take_option "${SAVED[i]}" "${SAVED[i + 1]}"
		i=$((i + $(words_of "${SAVED[i]}")))
	done
}

# words_of OPTION: how many words it takes.
words_of() {
	case $1 in
	--insecure) echo 1 ;;
	*) echo 2 ;;
	esac
}

# save_option OPTION [VALUE]: it takes the place of what it overrides, so that the options of many runs are noted once.
save_option() {
	local i=0
	while [ $i -lt ${#SAVED[@]} ]; do
		if overrides "$1" "${2-}" "${SAVED[i]}" "${SAVED[i + 1]-}"; then
			[ $# -eq 1 ] || SAVED[i + 1]=$2
			return
		fi
		i=$((i + $(words_of "${SAVED[i]}")))
	done
	SAVED+=("$@")
}

# overrides OPTION VALUE OLD-OPTION OLD-VALUE: of a member the number counts, of a chain all of it, of others the name of the option.
overrides() {
	[ "$1" = "$3" ] || return 1
	case $1 in
	--server | --standby | --unit | --spare) [ "${2%%=*}" = "${4%%=*}" ] ;;
	--chain) [ "$2" = "$4" ] ;;
	esac
}

take_option() {
	case $1 in
	--role) ROLES=$2 ;;
	--addr) ADDR=$2 ;;
	--id) ID=$2 ;;
	--units) UNITS=$2 ;;
	--store) STORES=$2 ;;
	--capacity) CAPACITY=$2 ;;
	--device) DEVICE=$2 ;;
	--provider) PROVIDER=$2 ;;
	--soft-roce) SOFT_ROCE=$2 ;;
	--huge-pages) HUGE_PAGES=$2 ;;
	--server) SERVERS+=("$2") ;;
	--seq) SEQ=$2 ;;
	--standby) STANDBYS+=("$2") ;;
	--unit) MEMBERS+=("$2") ;;
	--spare) SPARES+=("$2") ;;
	--chain) CHAINS+=("$2") ;;
	--durability) DURABILITY=$2 ;;
	--cluster) CLUSTER=$2 ;;
	--metrics) METRICS=$2 ;;
	esac
}

has_role() { [[ ,$ROLES, == *,$1,* ]]; }

serves() { has_role layout || has_role seq || has_role unit; }

loopback() { [[ $1 == 127.* || $1 == ::1 || $1 == localhost ]]; }

os_release() { sed -n "s/^$1=//p" /etc/os-release | tr -d '"'; }

check_machine() {
	local id='' version=''
	if [ -r /etc/os-release ]; then
		id=$(os_release ID)
		version=$(os_release VERSION_ID)
	fi
	[[ $id == debian && ${version%%.*} -ge 12 ]] || die "this is made for Debian 12 or later, and this is ${id:-no Linux that it knows} $version"
	[ "$(uname -m)" = x86_64 ] || die "this is made for amd64 (x86_64), not $(uname -m)"
	[ "$MODE" != apply ] || [ "$(id -u)" -eq 0 ] || die "must be root (sudo $ME ...); --dry-run may be anybody"
}

check_options() {
	local role n units
	[ -n "$ROLES" ] || usage_error "--role is needed: layout, seq, unit, client or all"
	for role in ${ROLES//,/ }; do
		case $role in layout | seq | unit | client | all) ;; *) usage_error "--role $role: must be layout, seq, unit, client or all" ;; esac
	done
	[ -z "$ID" ] || is_number "$ID" || usage_error "--id $ID: must be a number from 1"
	[ -z "$HUGE_PAGES" ] || is_number "$HUGE_PAGES" || usage_error "--huge-pages $HUGE_PAGES: must be a number of pages"
	case $DURABILITY in flash | memory) ;; *) usage_error "--durability $DURABILITY: must be flash or memory" ;; esac
	case $PROVIDER in '' | verbs | tcp) ;; *) usage_error "--provider $PROVIDER: must be verbs or tcp" ;; esac
	ID=${ID:-1}
	if has_role all; then
		whole_cluster
	fi
	UNITS=${UNITS:-$ID}
	for n in ${UNITS//,/ }; do
		is_number "$n" || usage_error "--units $UNITS: $n is not a number from 1"
	done
	units=${UNITS//[^,]/} n=${STORES//[^,]/}
	[ -z "$STORES" ] || [ "${#units}" = "${#n}" ] || usage_error "--store must name as many places as there are units: $UNITS"
	[[ $STORES =~ ^[0-9a-zA-Z/._:@+=#,-]*$ ]] || usage_error "--store $STORES: paths of letters, digits and ._:@+=#- alone"
	! serves || [ -n "$ADDR" ] || usage_error "--addr is needed: the address that other machines reach this one at"
	[[ $ADDR =~ ^[0-9a-fA-F.:]*$ ]] || usage_error "--addr $ADDR: must be an IP address"
	[[ $METRICS =~ ^[0-9a-fA-F.:]*$ ]] || usage_error "--metrics $METRICS: must be an IP address"
	check_cluster
}

is_number() { [[ $1 =~ ^[1-9][0-9]*$ ]]; }

# whole_cluster: what --role all stands for.
whole_cluster() {
	local n i=0 chain=
	ROLES=layout,seq,unit,client
	ADDR=${ADDR:-127.0.0.1}
	UNITS=${UNITS:-1,2}
	[ "${#SERVERS[@]}${#MEMBERS[@]}${#CHAINS[@]}$SEQ" = 000 ] || return 0
	SEQ=1=$ADDR
	for n in ${UNITS//,/ }; do
		MEMBERS+=("$n=$(with_port "$ADDR" $((UNIT_PORT + i)))")
		chain+=${chain:+,}$n
		i=$((i + 1))
	done
	CHAINS=("$chain")
}

check_cluster() {
	local spec form='^[1-9][0-9]*=[][0-9a-zA-Z.:_-]+$'
	for spec in "${SERVERS[@]}" ${SEQ:+"$SEQ"} "${STANDBYS[@]}" "${MEMBERS[@]}" "${SPARES[@]}"; do
		[[ $spec =~ $form ]] || usage_error "member $spec: must be NUMBER=HOST or NUMBER=HOST:PORT"
	done
	has_role layout || return 0
	[[ -n $SEQ && ${#MEMBERS[@]} -gt 0 && ${#CHAINS[@]} -gt 0 ]] ||
		usage_error "a layout server must know the first layout: --seq, --unit and --chain, the same on every machine"
}

# with_port HOST[:PORT] DEFAULT; an IPv6 address with a port stands in brackets.
with_port() {
	case $1 in
	\[*\]) echo "$1:$2" ;;
	\[*\]:* | *.*:* ) echo "$1" ;;
	*:*:*) echo "[$1]:$2" ;;
	*:*) echo "$1" ;;
	*) echo "$1:$2" ;;
	esac
}
