#!/usr/bin/env bash
# install.sh: make this machine a member of a corfu cluster. Says what it does, may be run again and again, and changes only
# what differs. As part of the Debian package it is /usr/sbin/corfu-setup. docs/install.md is the guide, --help the reference.
set -euo pipefail
ME=$(basename "$0")
here=$(dirname "$(readlink -f "$0")")
lib=$here/appliance
[ -d "$lib" ] || lib=$here # as installed, everything lies in one directory
# shellcheck source=appliance/lib.sh
. "$lib/lib.sh"
# shellcheck source=appliance/options.sh
. "$lib/options.sh"
# shellcheck source=appliance/certs.sh
. "$lib/certs.sh"
# shellcheck source=appliance/config.sh
. "$lib/config.sh"
# shellcheck source=appliance/stores.sh
. "$lib/stores.sh"
# shellcheck source=appliance/services.sh
. "$lib/services.sh"
# shellcheck source=appliance/steps.sh
. "$lib/steps.sh"

parse_options "$@"
check_machine
check_options
find_software
check_trust

if [ "$MODE" != apply ]; then
	note "$MODE: nothing is changed"
fi
install_software
install_accounts
install_certificates
install_modules
install_fabric
install_limits
install_stores
install_config
remember_options
install_services
if [ -z "$NO_START" ]; then
	start_services
	verify_services
fi
case $MODE in
check)
	[ "$DIFFERS" -eq 0 ] || die "$DIFFERS things differ; without --check they are mended"
	note "everything is as it should be"
	;;
apply)
	if [ ${#TROUBLES[@]} -gt 0 ]; then
		printf "$ME: %s\n" "${TROUBLES[@]}" >&2
		exit 1
	fi
	note "done: corfu-setup --check looks again, uninstall.sh (or apt-get purge corfu) takes it away"
	;;
esac
