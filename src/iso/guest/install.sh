#!/bin/sh
# Installs the disk of this medium onto a disk of the machine.
#
#   install                 asks for the disk, and once more before anything is written
#   install SELECTOR        without questions, after a countdown: serial=TEXT, wwn=TEXT, path=/dev/NAME, size>=BYTES, only-disk
#   install --menu          what the boot menu starts: the selector of the medium, if it was given one
#
# Nothing is written before every check has passed. The holes of the image have to read as zeros, so they are written, too; all
# of it is read back from the disk and compared with the hashes made at build.
set -u
. /run/bootpress/medium.conf
raw=/run/initramfs/disk/disk.raw
extents=/run/initramfs/live/bootpress/extents
[ -e $extents ] || extents=/run/bootpress/extents
menu= selector=
case ${1:-} in
--menu) menu=1 ;;
-*) echo "usage: install [SELECTOR]" >&2; exit 2 ;;
*) selector=${1:-} ;;
esac
if [ "$menu" ]; then
	for word in $(cat /proc/cmdline); do
		case $word in bootpress.install-to=*) selector=${word#*=} ;; esac
	done
fi
unattended=$selector

say() { echo "install: $*"; }
# The end of it: in the menu, with nothing else running, the machine goes off or stays to be read.
leave() {
	[ "$menu" ] || exit "$1"
	if [ "$1" = 0 ]; then
		if [ -z "$unattended" ]; then
			say "press Enter to switch the machine off"
			read -r _ || :
		fi
		systemctl poweroff
		exit 0
	fi
	if [ "$unattended" ]; then
		say "nothing more is done; press Enter to switch the machine off"
	else
		say "press Enter to switch the machine off, or type r and Enter to try again"
	fi
	read -r answer || sleep 3600
	[ "${answer:-}" != r ] || [ "$unattended" ] || exec sh "$0" --menu
	systemctl poweroff
	exit "$1"
}
die() {
	echo "install: error: $*" >&2
	leave 1
}

attribute() { cat "/sys/class/block/$1/$2" 2>/dev/null | tr -s '[:space:]' ' ' | sed 's/^ //;s/ $//'; }
bytes() { echo $(($(attribute "$1" size) * 512)); }
property() { udevadm info --query=property --property="$2" --value "/dev/$1" 2>/dev/null; }
# Where it is depends on the bus: udev asks SCSI and SATA disks, virtio says it itself, NVMe's controller does.
serial() {
	text=$(property "$1" ID_SERIAL_SHORT)
	[ "$text" ] || text=$(attribute "$1" serial)
	[ "$text" ] || text=$(attribute "$1" device/serial)
	echo "$text"
}
wwn() {
	text=$(property "$1" ID_WWN)
	echo "${text:-$(attribute "$1" wwid)}"
}
model() {
	text=$(attribute "$1" device/model)
	echo "${text:-unknown model}"
}
human() { echo "$(($1 / 1000000000)).$(($1 / 100000000 % 10)) GB"; }

# The medium's own disk: what is mounted at /run/initramfs/live comes from there.
medium=$(findmnt -nro SOURCE /run/initramfs/live 2>/dev/null || :)
[ -z "$medium" ] || medium=$(basename "$(readlink -f "$medium")")
if [ "$medium" ] && [ -e "/sys/class/block/$medium/partition" ]; then
	medium=$(basename "$(readlink -f "/sys/class/block/$medium/..")")
fi

# Whole disks that could be meant: no memory, no optical drives, no partitions, nothing that is built of other disks.
disks() {
	for entry in /sys/class/block/*; do
		name=${entry##*/}
		case $name in loop* | ram* | zram* | dm-* | md* | sr* | fd* | nbd* | mtdblock* | *boot[0-9] | *rpmb) continue ;; esac
		# A hidden one is a path to an NVMe disk that has another name.
		[ "$(attribute "$name" hidden)" != 1 ] || continue
		[ ! -e "$entry/partition" ] && [ "$name" != "$medium" ] && [ "$(attribute "$name" size)" != 0 ] && echo "$name"
	done
	return 0
}
contents() {
	found=$(lsblk -nro FSTYPE,LABEL "/dev/$1" 2>/dev/null | grep -v '^ *$' | tr '\n' ',' | sed 's/ ,/,/g;s/,$//;s/,/, /g')
	echo "${found:-nothing known}"
}
list() {
	for name in $(disks); do
		printf '  %-10s %10s  %s, serial %s\n             holds: %s\n' "$name" "$(human "$(bytes "$name")")" \
			"$(model "$name")" "$(serial "$name")" "$(contents "$name")"
	done
}

# Why a disk cannot be taken; nothing if it can.
objection() {
	name=$1
	if [ "$name" = "$medium" ]; then
		echo "/dev/$name is the medium that this system runs from"
	elif [ ! -e "/sys/class/block/$name" ]; then
		echo "there is no disk /dev/$name"
	elif [ -e "/sys/class/block/$name/partition" ]; then
		echo "/dev/$name is a partition, not a disk"
	elif ! disks | grep -x "$name" >/dev/null; then
		echo "/dev/$name is no disk to install to"
	elif [ "$(attribute "$name" ro)" != 0 ]; then
		echo "/dev/$name is read-only"
	elif [ "$(attribute "$name" queue/logical_block_size)" != 512 ]; then
		echo "/dev/$name has sectors of $(attribute "$name" queue/logical_block_size) bytes, and this system was made for 512"
	elif [ "$(bytes "$name")" -lt "$DISK_SIZE" ]; then
		echo "/dev/$name is too small: it has $(bytes "$name") bytes, and the system needs $DISK_SIZE"
	elif lsblk -nro MOUNTPOINT "/dev/$name" | grep . >/dev/null || [ "$(ls "/sys/class/block/$name/holders")" ]; then
		echo "/dev/$name is in use"
	fi
}

matches() {
	case $selector in
	serial=*) [ "$(serial "$1")" = "${selector#*=}" ] ;;
	wwn=*) [ "$(wwn "$1")" = "${selector#*=}" ] ;;
	path=*) [ "$(readlink -f "${selector#*=}")" = "/dev/$1" ] ;;
	'size>='*) [ "$(bytes "$1")" -ge "${selector#*=}" ] ;;
	only-disk) true ;;
	*) false ;;
	esac
}
select_disk() {
	case $selector in
	serial=?* | wwn=?* | path=/* | only-disk) ;;
	'size>='*[!0-9]* | 'size>=') die "size>= wants a number of bytes: $selector" ;;
	'size>='*) ;;
	*) die "no such selector: $selector" ;;
	esac
	found= count=0
	if [ "${selector%%=*}" = path ]; then
		found=$(basename "$(readlink -f "${selector#*=}")")
		count=1
	else
		for name in $(disks); do
			if matches "$name"; then
				found="$found $name"
				count=$((count + 1))
			fi
		done
	fi
	[ "$(disks)" ] || die "there is no disk to install to; nothing was written"
	[ $count != 0 ] || die "no disk matches $selector; the disks are:
$(list)"
	[ $count = 1 ] || die "$count disks match $selector:$found; nothing was written"
	target=${found# }
	reason=$(objection "$target")
	[ -z "$reason" ] || die "$reason; nothing was written"
}

countdown() {
	left=10
	settings=$(stty -g 2>/dev/null || :)
	[ -z "$settings" ] || stty -icanon -echo min 0 time 10
	while [ $left -gt 0 ]; do
		printf '\rinstall: everything on /dev/%s is lost in %2d s; any key stops it ' "$target" $left
		if [ "$settings" ]; then
			key=$(dd bs=1 count=1 2>/dev/null | od -An -tx1)
			if [ "$key" ]; then
				stty "$settings"
				echo
				die "stopped; nothing was written"
			fi
		else
			sleep 1
		fi
		left=$((left - 1))
	done
	[ -z "$settings" ] || stty "$settings"
	echo
}
ask() {
	echo
	echo "Install $TITLE. The disks of this machine:"
	echo
	list
	[ "$(disks)" ] || die "there is no disk to install to; nothing was written"
	while :; do
		echo
		printf 'Name of the disk to install to, or q to leave: '
		read -r target || die "no answer; nothing was written"
		target=${target#/dev/}
		case $target in q) die "stopped; nothing was written" ;; '') continue ;; esac
		reason=$(objection "$target")
		[ "$reason" ] || break
		say "$reason"
	done
	echo "Everything on /dev/$target is lost: $(contents "$target")."
	printf 'Type its name once more to go on: '
	read -r again || again=
	[ "${again#/dev/}" = "$target" ] || die "that is another name; nothing was written"
}

progress() {
	percent=$(($2 * 100 / $3))
	[ $percent = "$shown" ] || printf '\rinstall: %s %3d %% ' "$1" $percent
	shown=$percent
}
total=0
while read -r _ count _; do total=$((total + count)); done <$extents
copy() {
	done=0 shown=
	while read -r start count _; do
		dd if=$raw of="$device" bs=1M skip="$start" seek="$start" count="$count" conv=notrunc status=none </dev/null || return 1
		done=$((done + count))
		progress copied $done $total
	done <$extents
	echo
}
check() {
	done=0 shown=
	while read -r start count hash; do
		got=$(dd if="$device" bs=1M skip="$start" count="$count" status=none </dev/null | sha256sum)
		[ "${got%% *}" = "$hash" ] || { bad=$start; return 1; }
		done=$((done + count))
		progress checked $done $total
	done <$extents
	echo
}
grow() {
	echo ', +' | sfdisk --no-reread --no-tell-kernel -q -N "$ROOT_NUMBER" "$device" || return 1
	# udev looks into a disk whenever somebody has written to it, and the kernel reads no table while anybody does.
	tries=0
	until blockdev --rereadpt "$device" 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 30 ] || return 1
		udevadm settle
		sleep 1
	done
	udevadm settle
	case $target in *[0-9]) root=${device}p$ROOT_NUMBER ;; *) root=$device$ROOT_NUMBER ;; esac
	mkdir -p /run/bootpress/target
	mount -t "$ROOT_TYPE" "$root" /run/bootpress/target || return 1
	if [ -x /usr/lib/systemd/systemd-growfs ]; then
		/usr/lib/systemd/systemd-growfs /run/bootpress/target
	elif [ "$ROOT_TYPE" = btrfs ]; then
		btrfs filesystem resize max /run/bootpress/target
	elif [ "$ROOT_TYPE" = xfs ]; then
		xfs_growfs /run/bootpress/target
	else
		resize2fs "$root"
	fi
	status=$?
	umount /run/bootpress/target
	return $status
}
# What `bootpress iso set --config` left on the medium runs in the installed system, once.
configure() {
	[ -e /run/bootpress/config.sh ] || return 0
	for word in $(cat /proc/cmdline); do
		case $word in ostree=*) deployment=${word#ostree=} ;; esac
	done
	mount -t "$ROOT_TYPE" "$root" /run/bootpress/target || return 1
	etc=$(readlink -e "/run/bootpress/target$deployment/etc") &&
		mkdir -p "$etc/bootpress" "$etc/systemd/system/sysinit.target.wants" &&
		(umask 077 && cat /run/bootpress/config.sh >"$etc/bootpress/config.sh") &&
		cat /run/systemd/system/bootpress-config.service >"$etc/systemd/system/bootpress-config.service" &&
		ln -sf ../bootpress-config.service "$etc/systemd/system/sysinit.target.wants/bootpress-config.service"
	status=$?
	umount /run/bootpress/target
	return $status
}
boot_entry() {
	[ -d /sys/firmware/efi ] || return 0
	[ -e /sys/firmware/efi/efivars ] && mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null
	if [ -z "$ESP_NUMBER" ] || ! command -v efibootmgr >/dev/null; then
		say "the firmware finds the disk by itself: it looks for EFI/BOOT"
		return 0
	fi
	# An older entry of the same name leads nowhere any more.
	for number in $(efibootmgr | sed -n "s/^Boot\([0-9A-F]\{4\}\)\*\{0,1\} $TITLE\t.*/\1/p"); do
		efibootmgr -q -b "$number" -B
	done
	efibootmgr -q -c -d "$device" -p "$ESP_NUMBER" -L "$TITLE" -l "$LOADER_PATH" ||
		say "the firmware took no boot entry; it finds the disk by itself"
}

if [ "$selector" ]; then
	say "installing $TITLE; looking for the disk with $selector"
	select_disk
	echo "  /dev/$target: $(human "$(bytes "$target")"), $(model "$target"), holds: $(contents "$target")"
	countdown
else
	ask
fi
device=/dev/$target
say "writing to $device"
size=$(($(stat -c %s $raw)))
blkdiscard -f -z -l "$size" "$device" 2>/dev/null ||
	dd if=/dev/zero of="$device" bs=1M count=$((size / 1048576)) conv=fsync status=none ||
	die "$device cannot be written to"
# What an older and larger system left at the end would be taken for this one's partition table.
wipefs -q -a "$device" 2>/dev/null || :
copy || die "copying to $device failed; the disk is not complete"
sync
blockdev --flushbufs "$device"
echo 3 >/proc/sys/vm/drop_caches
check || die "$device does not read back what was written to it (MiB $bad): the medium or the disk is bad"
grow || die "$device holds the system, but it could not be made as large as the disk"
configure || die "$device holds the system, but not the configuration of this medium"
boot_entry
sync
say "done: $TITLE is on $device. Take the medium out and start the machine from that disk."
leave 0
