#!/usr/bin/env bash
# uninstall.sh [--purge] [--check | --dry-run]: undo install.sh. Configuration and data stay, unless --purge is given: then
# nothing is left but what block devices hold. What was installed as a package is taken away by apt-get remove or purge.
set -euo pipefail
ME=$(basename "$0")
here=$(dirname "$(readlink -f "$0")")
lib=$here/appliance
[ -d "$lib" ] || lib=$here
# shellcheck source=appliance/lib.sh
. "$lib/lib.sh"
# shellcheck source=appliance/undo.sh
. "$lib/undo.sh"

purge=
while [ $# -gt 0 ]; do
	case $1 in
	--purge) purge=1 ;;
	--check) MODE=check ;;
	--dry-run) MODE=dry-run ;;
	-h | --help)
		echo "Usage: uninstall.sh [--purge] [--check | --dry-run]"
		echo "Undoes install.sh. Configuration (/etc/corfu) and data (/var/lib/corfu) stay, unless --purge is given."
		exit 0
		;;
	*) usage_error "unknown option $1" ;;
	esac
	shift
done
[ "$MODE" != apply ] || [ "$(id -u)" -eq 0 ] || die "must be root (sudo $ME ...); --dry-run may be anybody"
[ "$(dpkg-query -W -f '${db:Status-Status}' corfu 2>/dev/null)" != installed ] ||
	die "corfu is installed as a package: apt-get remove corfu, or apt-get purge corfu for configuration and data, too"

undo_setup
if [ -n "$purge" ]; then
	purge
fi
case $MODE in
check) [ "$DIFFERS" -eq 0 ] || die "$DIFFERS things are left" ;;
apply) note "done${purge:+: nothing is left}" ;;
esac
