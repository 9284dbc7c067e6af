# shellcheck shell=bash
# What install.sh, uninstall.sh and the package's maintainer scripts share: a step looks first, says what it finds, and
# changes only what differs. MODE decides what "changes" means: apply, check (say, and end with status 1) or dry-run (say).
# Sourced; the caller has set -euo pipefail.

shopt -s lastpipe # what the last part of a pipe finds out counts
MODE=apply # whatever a variable of root's says
umask 022  # the same
DIFFERS=0                            # with check: how many steps found work
ROOT_CONF=/etc/corfu
STATE=/var/lib/corfu
NOTES=$STATE/appliance               # what undo has to know: who was made, what stood there before
ME=${ME:-$(basename "$0")}

die() {
	echo "$ME: $*" >&2
	exit 1
}

usage_error() {
	echo "$ME: $* (see $ME --help)" >&2
	exit 2
}

ok() { printf 'ok       %s\n' "$*"; }
note() { printf 'note     %s\n' "$*"; }

# trouble TEXT: something is wrong that the rest does not depend on. The installation goes on, and fails at its end.
TROUBLES=()
trouble() {
	printf 'WRONG    %s\n' "$*"
	TROUBLES+=("$*")
	DIFFERS=$((DIFFERS + 1))
}

# change WHAT COMMAND...: the command makes WHAT true.
change() {
	local what=$1
	shift
	case $MODE in
	apply)
		printf 'do       %s\n' "$what"
		"$@" || die "could not do this: $what"
		;;
	check)
		printf 'differs  %s\n' "$what"
		DIFFERS=$((DIFFERS + 1))
		;;
	dry-run) printf 'would    %s\n' "$what" ;;
	esac
}

# systemd_runs: the package may be unpacked in a chroot, where nothing is to be started.
systemd_runs() { [ -d /run/systemd/system ]; }

# noted FILE LINE: is the line in the notes?
noted() { [ -e "$NOTES/$1" ] && grep -qxF -- "$2" "$NOTES/$1"; }

take_note() {
	noted "$1" "$2" || { mkdir -p "$NOTES" && printf '%s\n' "$2" >>"$NOTES/$1" && sync "$NOTES/$1"; }
}

drop_note() { # FILE LINE
	! noted "$1" "$2" || { grep -vxF -- "$2" "$NOTES/$1" || true; } | put_file "$NOTES/$1" 644 root:root
}

notes_of() { cat "$NOTES/$1" 2>/dev/null || true; }

# What change runs is told by its status alone whether it came to its end: set -e does not hold in there, so each step asks for the one
# before. Notes come before what they are about: what stops in between leaves nothing that undo does not know.

# put_file PATH MODE OWNER:GROUP: the file with the bytes of stdin, by rename, so that nobody reads half of it, and no power cut leaves
# a name without its bytes.
put_file() {
	if ! { mkdir -p "$(dirname "$1")" && (umask 077 && cat >"$1.corfu-new") && chmod "$2" "$1.corfu-new" && chown "$3" "$1.corfu-new" &&
		sync "$1.corfu-new" && mv "$1.corfu-new" "$1"; }; then
		rm -f "$1.corfu-new"
		return 1
	fi
}

# file_is PATH MODE OWNER:GROUP TEXT
file_is() {
	[ -f "$1" ] && [ "$(stat -c '%a %U:%G' "$1")" = "$2 $3" ] && [ "$(cat "$1")" = "$4" ]
}

# ensure_file PATH MODE OWNER:GROUP: stdin is what it must hold. Sets CHANGED.
# shellcheck disable=SC2034
ensure_file() {
	local text
	text=$(cat)
	CHANGED=
	if file_is "$1" "$2" "$3" "$text"; then
		ok "$1"
		return
	fi
	CHANGED=1
	change "write $1" write_noted "$1" "$2" "$3" "$text"
}

write_noted() {
	take_note files "$1" && put_file "$1" "$2" "$3" <<<"$4"
}

# ensure_config PATH MODE OWNER:GROUP: as ensure_file, but what the operator changed since it was written stays.
ensure_config() {
	local text sum
	text=$(cat)
	if file_is "$1" "$2" "$3" "$text"; then
		ok "$1"
		return
	fi
	if [ -e "$1" ]; then
		sum=$(sha256sum "$1" | cut -d ' ' -f 1)
		if [ -z "${FORCE:-}" ] && ! noted configs "$sum  $1"; then
			note "$1 was changed by hand and stays (--force writes it anew)"
			return
		fi
	fi
	change "write $1" write_config "$1" "$2" "$3" "$text"
}

write_config() {
	local line
	line="$(sha256sum <<<"$4" | cut -d ' ' -f 1)  $1"
	take_note configs "$line" && put_file "$1" "$2" "$3" <<<"$4" &&
		{ grep -vF -- "  $1" "$NOTES/configs" || true; echo "$line"; } | put_file "$NOTES/configs" 644 root:root
}

# ensure_copy FROM PATH MODE: a file of the software, root's.
ensure_copy() {
	if [ -f "$2" ] && cmp -s "$1" "$2" && [ "$(stat -c '%a %U' "$2")" = "$3 root" ]; then
		ok "$2"
		return
	fi
	change "install $2" copy_noted "$1" "$2" "$3"
}

copy_noted() {
	take_note files "$2" && put_file "$2" "$3" root:root <"$1"
}

ensure_link() { # TO PATH
	if [ "$(readlink "$2")" = "$1" ]; then
		ok "$2"
	else
		change "link $2 to $1" link_noted "$1" "$2"
	fi
}

link_noted() {
	take_note files "$2" && ln -sfn "$1" "$2"
}

ensure_dir() { # PATH MODE OWNER:GROUP
	if [ -d "$1" ] && [ "$(stat -c '%a %U:%G' "$1")" = "$2 $3" ]; then
		ok "$1/"
	else
		change "make $1/" install -d -m "$2" -o "${3%:*}" -g "${3#*:}" "$1"
	fi
}

# ensure_group NAME, ensure_user NAME: system ones; noted when made, since undo takes away only those.
ensure_group() {
	if getent group "$1" >/dev/null; then
		ok "group $1"
	else
		change "add group $1" add_group "$1"
	fi
}

add_group() {
	groupadd --system "$1" && take_note groups "$1"
}

ensure_user() {
	if getent passwd "$1" >/dev/null; then
		ok "user $1"
	else
		change "add user $1" add_user "$1"
	fi
}

add_user() {
	useradd --system --gid "$1" --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin --comment 'corfu daemons' "$1" &&
		take_note users "$1"
}

# ensure_module NAME: loaded now; /etc/modules-load.d is for the boots to come.
ensure_module() {
	if [ -d "/sys/module/$1" ]; then
		ok "module $1"
	elif ! modprobe -n -q "$1"; then
		die "kernel $(uname -r) has no module $1 (Debian's cloud kernels have none for RDMA: linux-image-amd64 has)"
	else
		change "load module $1" modprobe "$1"
	fi
}

# ensure_sysctl KEY VALUE: now. What it was goes to the notes once.
ensure_sysctl() {
	local now
	now=$(sysctl -n "$1" 2>/dev/null) || die "kernel $(uname -r) has no sysctl $1"
	if [ "$now" = "$2" ]; then
		ok "sysctl $1 = $2"
	else
		change "sysctl $1 = $2 (was $now)" set_sysctl "$1" "$2" "$now"
	fi
}

set_sysctl() {
	{ grep -qs "^$1=" "$NOTES/sysctls" || take_note sysctls "$1=$3"; } && sysctl -q -w "$1=$2"
}

# health PORT: what the daemon at this HTTP port of loopback says: "ok", or why not; empty if nobody answers.
health() {
	local fd answer
	{ exec {fd}<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 0
	printf 'GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n' >&"$fd" || true
	answer=$(timeout 10 cat <&"$fd" | tr -d '\r') || true
	exec {fd}>&-
	tail -n 1 <<<"$answer"
}
