set -u
umask 022
failed=
fail() {
	echo "configuration: $*" >&2
	failed=1
}
label() {
	[ ! -e /sys/fs/selinux/enforce ] || ! command -v restorecon >/dev/null || restorecon -R -F "$@" || fail "labelling $*"
}
below() { # PATH: the directory that it is in
	[ -d "${1%/*}" ] || { mkdir -p "${1%/*}" && label "${1%/*}"; }
}
put() { # PATH MODE OWNER, content in base64
	below "$1"
	if (umask 077 && base64 -d >"$1.bootpress") && chmod "$2" "$1.bootpress" && chown "$3" "$1.bootpress" && mv -f "$1.bootpress" "$1"; then
		label "$1"
	else
		rm -f "$1.bootpress"
		fail "writing $1"
	fi
}
directory() { # PATH MODE OWNER PARENTS; - is: as it is
	[ -d "${1%/*}" ] || [ "$4" = yes ] || { fail "making $1: there is no ${1%/*}" && return; }
	mkdir -p "$1" || { fail "making $1" && return; }
	[ "$2" = - ] || chmod "$2" "$1" || fail "making $1"
	[ "$3" = - ] || chown "$3" "$1" || fail "making $1"
	label "$1"
}
assign() { # FILE KEY VALUE
	below "$1"
	{ grep -v "^$2=" "$1" 2>/dev/null; echo "$2=$3"; } >"$1.bootpress" && mv -f "$1.bootpress" "$1" && label "$1" || fail "writing $1"
}
host_name() {
	echo "$1" >/etc/hostname && label /etc/hostname || fail "writing /etc/hostname"
	echo "$1" >/proc/sys/kernel/hostname || fail "naming the machine"
}
time_zone() {
	[ -e "/usr/share/zoneinfo/$1" ] || { fail "the system has no time zone $1" && return; }
	ln -sfn "../usr/share/zoneinfo/$1" /etc/localtime || fail "linking /etc/localtime"
	[ ! -e /etc/timezone ] || echo "$1" >/etc/timezone
}
# The line of passwd, group or shadow that belongs to a name. Some images keep accounts in /usr/lib, too, and not all have getent.
account() { # FILE NAME
	for file in "/etc/$1" "/usr/lib/$1"; do
		[ -e "$file" ] || continue
		while IFS= read -r line; do
			case $line in "$2":*) printf '%s\n' "$line" && return ;; esac
		done <"$file"
	done
	return 1
}
has_group() { # GID
	cat /etc/group /usr/lib/group 2>/dev/null | grep -q "^[^:]*:[^:]*:$1:"
}
# What is in /usr/lib can be changed in /etc only.
import() { # FILE NAME
	kept=$(account "$1" "$2") || return 0
	grep -qxF -e "$kept" "/etc/$1" || printf '%s\n' "$kept" >>"/etc/$1"
}
add_group() { # NAME GID
	if known=$(account group "$1"); then
		[ -z "$2" ] || case $known in "$1":*:"$2":*) ;; *) fail "the group $1 has another number than $2" ;; esac
	else
		groupadd ${2:+-g "$2"} "$1" || fail "adding the group $1"
	fi
}
add_user() { # NAME UID GID COMMENT HOME SHELL
	if account passwd "$1" >/dev/null; then
		import passwd "$1"
		[ -z "$2" ] || [ "$(id -u "$1")" = "$2" ] || fail "the user $1 has another number than $2"
		[ -z "$3" ] || [ "$(id -g "$1")" = "$3" ] || fail "the user $1 has another group than $3"
		[ -z "$4$5$6" ] || usermod ${4:+-c "$4"} ${5:+-d "$5"} ${6:+-s "$6"} "$1" || fail "changing the user $1"
		return
	fi
	[ -z "$3" ] || has_group "$3" || groupadd -g "$3" "$1" || fail "adding the group $1"
	own=-U
	if [ "$3" ]; then
		own="-g $3"
	elif account group "$1" >/dev/null; then
		own="-g $1"
	fi
	# Two words of $own, of which neither has a blank in it.
	useradd -m $own -d "${5:-/var/home/$1}" ${2:+-u "$2"} ${4:+-c "$4"} ${6:+-s "$6"} "$1" || fail "adding the user $1"
	label "${5:-/var/home/$1}"
}
password() { # USER HASH
	import shadow "$1"
	usermod -p "$2" "$1" || fail "setting the password of $1"
}
join() { # USER GROUP
	import group "$2"
	usermod -a -G "$2" "$1" || fail "adding $1 to the group $2"
}
keys() { # USER, keys in base64
	known=$(account passwd "$1") || { fail "there is no user $1 for ssh keys" && return; }
	IFS=: read -r _ _ uid gid _ home _ <<END
$known
END
	[ -d "$home" ] || { mkdir -p "$home" && chmod 700 "$home" && chown "$uid:$gid" "$home"; }
	mkdir -p "$home/.ssh" && touch "$home/.ssh/authorized_keys" || fail "making $home/.ssh"
	base64 -d | while read -r key; do
		grep -qxF -e "$key" "$home/.ssh/authorized_keys" || printf '%s\n' "$key" >>"$home/.ssh/authorized_keys"
	done || fail "writing the keys of $1"
	chmod 700 "$home/.ssh" && chmod 600 "$home/.ssh/authorized_keys" && chown -R "$uid:$gid" "$home/.ssh" || fail "making $home/.ssh"
	label "$home"
}
age() { # what chage takes; the user comes last
	chage "$@" || fail "changing the age of a password: $*"
}
enable() {
	systemctl enable "$1" && systemctl start --no-block "$1" || fail "enabling $1"
}
disable() {
	systemctl disable "$1" && systemctl stop --no-block "$1" || fail "disabling $1"
}
mask() {
	systemctl mask "$1" && systemctl stop --no-block "$1" || fail "masking $1"
}
