# shellcheck shell=bash
# Where units keep everything: a directory of their own, or a block device that the user corfu may open.

# By name after 60-persistent-storage.rules, which finds out what these rules go by.
UDEV_RULES=/etc/udev/rules.d/65-corfu.rules

# store_of NUMBER INDEX: the path in the unit's configuration; of a device a name that stays the same when others are plugged in.
store_of() {
	local path
	path=$(cut -d , -f $(($2 + 1)) <<<"$STORES")
	if [ -z "$path" ]; then
		echo "$STATE/unit-$1"
	elif [ -b "$path" ]; then
		stable_name "$path"
	else
		echo "$path"
	fi
}

stable_name() {
	local link device
	device=$(readlink -f "$1")
	for link in /dev/disk/by-id/* /dev/disk/by-path/*; do
		if [ -e "$link" ] && [ "$(readlink -f "$link")" = "$device" ]; then
			echo "$link"
			return
		fi
	done
	echo "$1"
}

# stable_stores LIST: the places of --store, by the names of their drives that outlive a boot.
stable_stores() {
	local path list=
	while IFS= read -r path; do
		[ ! -b "$path" ] || path=$(stable_name "$path")
		list+=,$path
	done < <(tr , '\n' <<<"$1")
	echo "${list#,}"
}

# gone PATH: it is the name of a drive, and of none that is there.
gone() { [[ $1 == /dev/* && ! -b $1 ]]; }

install_stores() {
	local n i=0 path rules=
	has_role unit || return 0
	for n in ${UNITS//,/ }; do
		path=$(store_of "$n" "$i")
		i=$((i + 1))
		case $path in
		"$STATE/unit-$n") ;; # systemd makes it, and lets the service write there
		/dev/*)
			if gone "$path"; then
				# A drive that failed must not keep the rest of the machine from being upgraded.
				noted stores "$path" || die "unit $n: $path is no block device"
				note "unit $n: $path is not there; what is set up for it stays"
				rules+=$(sed -n "/^# unit $n\$/,+1p" "$UDEV_RULES" 2>/dev/null || true)$'\n'
				continue
			fi
			refuse_in_use "$n" "$path"
			[ "$MODE" != apply ] || take_note stores "$path"
			rules+=$(udev_rule "$n" "$path")$'\n'
			drop_in "$n" "DeviceAllow=$path rw"
			;;
		/home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*) die "unit $n: $path is out of a service's reach, or cleaned up: use a path such as /srv/corfu" ;;
		/*)
			ensure_dir "$path" 750 corfu:corfu
			[ "$MODE" != apply ] || take_note stores "$path"
			drop_in "$n" "ReadWritePaths=$path"
			;;
		*) usage_error "--store $path: must be an absolute path" ;;
		esac
	done
	[ -n "$rules" ] || return 0
	printf '# Written by corfu-setup: the stores of units are theirs.\n%s' "$rules" | ensure_file "$UDEV_RULES" 644 root:root
	if [ -n "$CHANGED" ]; then
		change "give the stores to corfu (udev)" reload_udev
	fi
}

reload_udev() {
	[ -S /run/udev/control ] || return 0
	udevadm control --reload && udevadm trigger --subsystem-match=block --action=change && udevadm settle -t 30
}

# refuse_in_use: what is mounted, or part of something else. What it holds is the unit's own check: it takes a blank device, or its own.
refuse_in_use() {
	local at
	at=$(lsblk -nro MOUNTPOINTS,TYPE "$2" | awk '$1 != "disk" && $1 != "part" && NF { print $1; exit }')
	[ -z "$at" ] || die "unit $1: $2 is in use ($at): a unit wants a device of its own"
}

# udev_rule: by what stays the same over boots.
udev_rule() {
	local key value
	for key in ID_PART_ENTRY_UUID ID_WWN ID_SERIAL ID_PATH; do
		value=$(udevadm info -q property --property="$key" --value -n "$2" 2>/dev/null || true)
		if [ -n "$value" ]; then
			printf '# unit %s\nSUBSYSTEM=="block", ENV{%s}=="%s", ENV{DEVTYPE}=="%s", OWNER="corfu", GROUP="corfu", MODE="0660"\n' \
				"$1" "$key" "$value" "$(udevadm info -q property --property=DEVTYPE --value -n "$2")"
			return
		fi
	done
	die "unit $1: udev knows nothing of $2 by which it could be told from other devices (udevadm info $2)"
}

drop_in() { # NUMBER LINE
	printf '# Written by corfu-setup.\n[Service]\n%s\n' "$2" | ensure_file "/etc/systemd/system/corfu-unit@$1.service.d/store.conf" 644 root:root
}
