#!/usr/lib/bootpress/bin/sh
# Finds the medium, opens the disk on it, and makes a snapshot of the disk's root whose changes stay in memory. systemd starts it where the image's initramfs has one; in an initramfs of our own it is the init.
set -eu
here=/usr/lib/bootpress
. $here/medium.conf
at=/run/initramfs

# Programs of the image with the libraries that they were made for, whatever else the initramfs holds.
for tool in $TOOLS; do
	eval "$tool() { $here/lib/$LOADER --library-path $here/lib $here/bin/$tool \"\$@\"; }"
done

init=
if [ $$ = 1 ]; then
	init=1
	mount -t devtmpfs -o mode=0755,nosuid dev /dev
	mount -t proc -o nosuid,nodev,noexec proc /proc
	mount -t sysfs -o nosuid,nodev,noexec sys /sys
	mount -t tmpfs -o mode=0755,nosuid,nodev run /run
	exec </dev/console >/dev/console 2>&1
fi

say() { echo "<5>bootpress: $*" >/dev/kmsg; }
die() {
	echo "<2>bootpress: $*" >/dev/kmsg
	[ "$init" ] || exit 1
	echo "bootpress: $*; switch the machine off"
	# An init that ends is a panic, which hides what was said.
	while :; do sleep 3600; done
}
[ -z "$init" ] || trap 'die "the live system could not be prepared"' EXIT

mkdir -p $at/live $at/disk $at/store /run/udev/rules.d
# The root file system shows through its origin and through the store of changes: by-uuid links must not lead there.
echo 'SUBSYSTEM=="block", KERNEL=="loop*|zram0", ENV{UDEV_DISABLE_PERSISTENT_STORAGE_BLKID_FLAG}="1"' \
	>/run/udev/rules.d/10-bootpress.rules
# The name of the live root: an initramfs need not have device-mapper's own rules. Behind systemd's, which may call it not ready.
echo 'ACTION!="remove", SUBSYSTEM=="block", ATTR{dm/name}=="live-root", SYMLINK+="bootpress/root", TAG+="systemd", ENV{SYSTEMD_READY}="1"' \
	>/run/udev/rules.d/99-zz-bootpress.rules
[ "$init" ] || udevadm control --reload 2>/dev/null || :

while read -r name file; do
	[ -d "/sys/module/$name" ] || insmod "$here/modules/$file" 2>/dev/null || say "module $name cannot be loaded"
done <$here/modules.list

# A second medium may have the same label: what decides is the id in a file.
is_medium() {
	[ -b "$1" ] || return 1
	mount -t iso9660 -o ro,nodev,nosuid,noexec "$1" $at/live 2>/dev/null || return 1
	id=
	read -r id <$at/live/bootpress/id 2>/dev/null || :
	[ "$id" != "$BUILD_ID" ] || return 0
	umount $at/live
	return 1
}
medium=
find_medium() {
	for device in "/dev/disk/by-label/$LABEL" /dev/sr[0-9]* /dev/sd[a-z]* /dev/vd[a-z]* /dev/nvme[0-9]*n[0-9]* /dev/mmcblk[0-9]*; do
		if is_medium "$device"; then
			medium=$device
			return 0
		fi
	done
	return 1
}
while read -r key memory _; do
	[ "$key" != MemTotal: ] || break
done </proc/meminfo
# What a boot loader brought along takes memory as long as the system runs. The file that is read here was unpacked last; it
# says how many KiB the machine should have, and how many of them are taken.
carried() {
	read -r needed taken <$here/whole ||
		die "root.img has not arrived as a whole: the boot loader has to load it behind live.img, into memory that the machine ($((memory / 1024)) MiB) must have for it twice"
	# The kernel keeps some for itself and does not count it.
	[ $((memory / 14 * 15)) -ge "$needed" ] ||
		die "the machine has $((memory / 1024)) MiB of memory, and this system needs $((needed / 1024)) MiB when it comes from the network"
	memory=$((memory - taken))
	medium="the network"
	container=$here/disk.squashfs
}
read -r arguments </proc/cmdline
case " $arguments " in
*" bootpress.root=initrd "*) carried ;;
*)
	tries=0
	until find_medium; do
		tries=$((tries + 1))
		[ $tries -le 120 ] || die "no medium with the id $BUILD_ID was found"
		sleep 1
	done
	container=$at/live/bootpress/disk.squashfs
	;;
esac
say "booting from $medium"

loop=$(losetup -f --show -r "$container")
mount -t squashfs -o ro,nodev,nosuid,noexec "$loop" $at/disk
origin=$(losetup -f --show -r -o "$ROOT_OFFSET" --sizelimit "$ROOT_SIZE" $at/disk/disk.raw)
sectors=$((ROOT_SIZE / 512))

limit=$((memory / 2))
if [ -e /sys/block/zram0/disksize ]; then
	echo "$ROOT_SIZE" >/sys/block/zram0/disksize
	echo "${limit}K" >/sys/block/zram0/mem_limit
	store=/dev/zram0
else
	mount -t tmpfs -o size=${limit}k,mode=0700 store $at/store
	truncate -s "$ROOT_SIZE" $at/store/changes
	store=$(losetup -f --show $at/store/changes)
fi
# Who waits for udev waits for rules that need not be there.
export DM_DISABLE_UDEV=1
dmsetup create live-root --table "0 $sectors snapshot $origin $store N 8"
for entry in /sys/block/dm-*; do
	read -r name <$entry/dm/name
	[ "$name" != live-root ] || root=$entry
done
echo change >$root/uevent
say "changes stay in memory: $store, at most $limit KiB"

mkdir -p /run/bootpress /run/systemd/system /run/motd.d
cp $here/medium.conf /run/bootpress/medium.conf
echo "$limit" >/run/bootpress/limit
cp $here/install.sh /run/bootpress/install
[ ! -e $here/extents ] || cp $here/extents /run/bootpress/extents
cp $here/motd /run/motd.d/bootpress
[ ! -e $here/config.sh ] || cp $here/config.sh /run/bootpress/config.sh
cp -R $here/units/. /run/systemd/system/
[ "$init" ] || exit 0

mkdir -p /sysroot
mount -t "$ROOT_TYPE" -o rw,"$ROOT_FLAGS" "/dev/${root##*/}" /sysroot
$here/lib/$LOADER --library-path $here/lib $here/bin/ostree-prepare-root /sysroot || die "ostree-prepare-root failed"
for directory in dev proc sys run; do mount --move /$directory /sysroot/$directory; done
# A rootfs cannot be left by pivot_root: what is moved over it becomes the root of whoever changes to it.
cd /sysroot
mount --move . /
exec $here/lib/$LOADER --library-path $here/lib $here/bin/chroot . /sbin/init
