# shellcheck shell=bash
# How install.sh is undone: by uninstall.sh, and by the package's prerm and postrm, which hold a copy since nothing else of the
# package is left by then.

# undo_setup: services, kernel settings and generated files that are no configuration. Software, configuration and data stay.
undo_setup() {
	stop_services
	restore_sysctls
	remove_generated
	[ "$MODE" = apply ] || return 0
	if systemd_runs; then
		systemctl daemon-reload
	fi
	if [ -S /run/udev/control ]; then
		udevadm control --reload
	fi
}

# stop_services: the devices under the daemons last.
stop_services() {
	local service
	for service in $(notes_of services | grep -v soft-roce) $(notes_of services | grep soft-roce); do
		if systemd_runs && systemctl is-active -q "$service"; then
			change "stop $service" systemctl stop "$service"
		fi
		if systemctl is-enabled -q "$service" 2>/dev/null; then
			change "no longer start $service at boot" systemctl -q disable "$service"
		elif [ "$MODE" = apply ] && [[ $service != corfu-soft-roce@* ]]; then
			take_note disabled "$service" # the operator's decision outlives a package that is installed again
		fi
		! systemd_runs || [ "$MODE" != apply ] || systemctl reset-failed "$service" 2>/dev/null || true
	done
	if systemd_runs && systemctl is-active -q corfu-fabric.target; then
		change "stop corfu-fabric.target" systemctl stop corfu-fabric.target
	fi
	forget services
	forget new-services
}

restore_sysctls() {
	local line
	while IFS= read -r line; do
		[ -n "$line" ] || continue
		if [ -e "/proc/sys/${line%%=*}" ]; then
			change "sysctl ${line%%=*} = ${line#*=}, as before" sysctl -q -w "${line%%=*}=${line#*=}"
		fi
	done < <(notes_of sysctls)
	forget sysctls
}

# remove_generated: what install.sh wrote outside of /etc/corfu.
remove_generated() {
	local file
	while IFS= read -r file; do
		case $file in
		'' | "$ROOT_CONF"/*) continue ;;
		/usr/*) ! dpkg -S "$file" >/dev/null 2>&1 || continue ;; # a package took it over
		esac
		[ -e "$file" ] || [ -L "$file" ] || continue
		change "remove $file" rm -f "$file"
		# Directories that it alone was in.
		case $file in
		/etc/systemd/system/*.d/* | /usr/lib/corfu/* | /usr/share/doc/corfu/*) [ "$MODE" != apply ] || rmdir --ignore-fail-on-non-empty "$(dirname "$file")" ;;
		esac
	done < <(notes_of files)
	forget files
}

forget() { [ "$MODE" != apply ] || rm -f "$NOTES/$1"; }

# remove_all DIR: a file system that is mounted there, or below, is made empty and stays mounted.
remove_all() { rm -rf "$1" || [ -z "$(find "$1" ! -type d -print -quit)" ]; }

# purge: configuration, certificates, data, accounts. Block devices keep what they hold.
purge() {
	local name users groups
	users=$(notes_of users)
	groups=$(notes_of groups)
	notes_of stores | while IFS= read -r name; do
		[ -d "$name" ] || note "$name keeps what it holds (blkdiscard -z makes it blank)"
		[[ ! -d $name || $name == "$STATE"/* ]] || note "$name keeps what it holds (rm -r takes it away)"
	done
	for name in "$ROOT_CONF" "$STATE"; do
		[ ! -e "$name" ] || change "remove $name and all that is in it" remove_all "$name"
	done
	for name in $users; do
		! getent passwd "$name" >/dev/null || change "remove user $name" userdel "$name"
	done
	for name in $groups; do
		! getent group "$name" >/dev/null || change "remove group $name" groupdel "$name"
	done
}
