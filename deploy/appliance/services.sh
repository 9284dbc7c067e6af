# shellcheck shell=bash
# The services of this machine: enabled, started, restarted onto newer software, and looked at. The package's installation changes nothing
# that the operator decided: a service that is known already stays enabled, disabled or masked as it is, and one that is stopped stays
# stopped (what deb-systemd-helper and deb-systemd-invoke do for others).

PATIENCE=${CORFU_SETUP_PATIENCE:-120} # seconds for a service to come up
DOWN=() # services that were not started, or did not come up; what is wrong has been said

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

# timers: what runs beside them, now and then.
timers() { ! has_role unit || echo corfu-disk-health.timer; }

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
	[ -n "$PACKAGE" ] || retire_services
	for service in $(services) $(timers); do
		if [ -n "$PACKAGE" ] && noted disabled "$service"; then
			note "$service was disabled when corfu was removed, and stays so (systemctl enable --now $service)"
			[ "$MODE" != apply ] || take_note services "$service"
		elif left_alone "$service"; then
			ok "$service is $(systemctl is-enabled "$service" 2>/dev/null || true), as it was"
		elif [[ $(systemctl is-enabled "$service" 2>/dev/null) == masked* ]]; then
			trouble "$service is masked, and cannot be started (systemctl unmask $service)"
			DOWN+=("$service")
		else
			enable_service "$service"
		fi
	done
}

# left_alone SERVICE: the package's installation does not decide whether it starts at boot.
left_alone() { [ -n "$PACKAGE" ] && noted services "$1"; }

# kept_down SERVICE: why the package's installation does not start it; fails if it does.
kept_down() {
	local status=0
	[ -n "$PACKAGE" ] && systemd_runs || return 1
	if [ -x /usr/sbin/policy-rc.d ]; then
		/usr/sbin/policy-rc.d "${1%.service}" start >/dev/null 2>&1 || status=$?
		[ $status -ne 101 ] || { echo "may not be started now (/usr/sbin/policy-rc.d)" && return; }
	fi
	case $(systemctl is-enabled "$1" 2>/dev/null || true) in
	masked*) echo "is masked" && return ;;
	disabled) systemctl is-active -q "$1" || { echo "is disabled" && return; } ;;
	esac
	noted services "$1" && [ "$(systemctl show -P ActiveState "$1")" = inactive ] && ! noted new-services "$1" && echo "was stopped"
}

# retire_services: those of roles and units that were taken away from this machine. Configuration and data stay.
retire_services() {
	local service wanted
	wanted=$(services && timers)
	for service in $(notes_of services); do
		if [[ $service == corfu-soft-roce@* ]] || grep -qxF "$service" <<<"$wanted"; then
			continue
		fi
		if systemd_runs && systemctl is-active -q "$service"; then
			change "stop $service, whose role this machine no longer has" systemctl stop "$service"
		fi
		if systemctl is-enabled -q "$service" 2>/dev/null; then
			change "no longer start $service at boot" systemctl -q disable "$service"
		fi
		[ "$MODE" != apply ] || drop_note services "$service"
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
	if [ "$MODE" = apply ]; then
		noted services "$1" || take_note new-services "$1"
		take_note services "$1"
		drop_note disabled "$1"
	fi
}

start_services() {
	local service why
	for service in $(services) $(timers); do
		if without_drive "$service" || is_down "$service"; then
			continue
		fi
		if why=$(kept_down "$service"); then
			note "$service $why, and is not started"
			DOWN+=("$service")
		elif distrusted "$service"; then
			DOWN+=("$service")
		else
			start_service "$service"
		fi
	done
	[ "$MODE" != apply ] || rm -f "$NOTES/new-services"
}

is_down() { [[ " ${DOWN[*]} " == *" $1 "* ]]; }

# attempt SERVICE WHAT COMMAND...: as change, but where the command fails the other services are still seen to.
attempt() {
	local service=$1 what=$2
	shift
	if [ "$MODE" != apply ]; then
		change "$@"
		return
	fi
	shift
	printf 'do       %s\n' "$what"
	if ! "$@"; then
		DOWN+=("$service")
		trouble "could not do this: $what"
	fi
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
		attempt "$1" "start $1" start_or_explain start "$1"
		return
	fi
	case $1 in
	*.timer | corfu-soft-roce@*) # the device of the latter does not go away under running daemons: the kernel would wait for them
		ok "$1 runs"
		return
		;;
	esac
	# Of its process, to the microsecond: what is replaced in the second of a start is newer than it.
	since=$(date -d "$(systemctl show --timestamp=us+utc -P ExecMainStartTimestamp "$1")" +%s%N)
	for file in /usr/bin/corfu $(service_files "$1"); do
		# The time of its arrival here: what dpkg unpacks is older.
		if [ -e "$file" ] && [ "$(stat -c %.9Z "$file" | tr -d .)" -gt "$since" ]; then
			attempt "$1" "restart $1 ($file is newer)" start_or_explain restart "$1"
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

# start_or_explain COMMAND SERVICE. dpkg does not wait for a daemon that takes longer; systemd does.
start_or_explain() {
	local status=0
	if [ -n "$PACKAGE" ]; then
		timeout "$PATIENCE" systemctl "$1" "$2" || status=$?
	else
		systemctl "$1" "$2" || status=$?
	fi
	[ $status -ne 0 ] || return 0
	[ $status -ne 124 ] || echo "$2 is not up after $PATIENCE s; systemd goes on waiting" >&2
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
		if without_drive "$service" || is_down "$service"; then
			continue
		fi
		port=$(http_port "$service")
		at=$(http_of "$service")
		if [ "$at" != "127.0.0.1:$port" ]; then
			ok "$service is up (its health is told at ${at:-no port})"
			continue
		fi
		while said=$(health "$port") && [ "$said" != ok ] && [ $SECONDS -lt $end ] && all_here; do
			sleep 0.5
		done
		case $said in
		ok) ok "$service is healthy" ;;
		'') trouble "$service does not answer at port $port (journalctl -u $service)" ;;
		*)
			if all_here; then
				trouble "$service is not healthy: $said (journalctl -u $service)"
			else
				note "$service is up and waits: $said"
			fi
			;;
		esac
	done
	# A build that has the doctor is asked; its findings are the operator's to read.
	if "$BINARY" doctor --help >/dev/null 2>&1; then
		# The device was tried when the machine was set up; on an upgrade the daemons are at work on it.
		"$BINARY" doctor ${AGAIN:+--live=false} || note "corfu doctor found something: see above"
	fi
}

# all_here: the whole cluster is on this machine, and all of it was started.
all_here() { whole_here && [ ${#DOWN[@]} -eq 0 ]; }

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
