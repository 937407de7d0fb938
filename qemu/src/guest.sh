# Runs in the guest after boot and says how it went, one line per fact:
#
#     boot-report KEY=BASE64 LENGTH        LENGTH: characters of BASE64
#
# Whoever reads it drops lines that are not whole, so it may share the console with the kernel. Plain POSIX sh, and no tool
# is taken for granted: a fact that cannot be had is not said.

port=${BOOT_REPORT_PORT:-/dev/virtio-ports/boot-report}
tries=0
while [ ! -e "$port" ] && [ "$tries" -lt "${BOOT_REPORT_TRIES:-20}" ]; do
    # The link is udev's; the kernel's own name does without it.
    for name in /sys/class/virtio-ports/*/name; do
        [ -r "$name" ] && [ "$(cat "$name")" = boot-report ] || continue
        port=${name%/name}
        port=/dev/${port##*/}
    done
    tries=$((tries + 1))
    [ -e "$port" ] || sleep 1
done
[ -e "$port" ] || port=${BOOT_REPORT_FALLBACK:-/dev/console}
exec 3>"$port"

encoded() {
    if command -v base64 >/dev/null 2>&1; then
        base64 | tr -d '\n'
    else
        openssl base64 -A
    fi
}

# say KEY VALUE: at most 60,000 bytes of it.
say() {
    value=$(printf '%s' "$2" | head -c 60000 | encoded)
    printf 'boot-report %s=%s %s\n' "$1" "$value" "${#value}" >&3
}

# run KEY COMMAND...: its output and its exit code, or nothing if there is no such command.
run() {
    key=$1
    shift
    command -v "$1" >/dev/null 2>&1 || return 0
    output=$("$@" 2>&1)
    code=$?
    say "$key" "$output"
    say "$key.exit" "$code"
}

# file KEY PATH
file() {
    [ -r "$2" ] && say "$1" "$(cat "$2" 2>/dev/null)"
}

say hello "$(uname -r)"

# A boot has ended when systemd says so, whichever way. While it has not, say what it waits for: if this is cut short, that
# is what somebody will want to know.
ticks=0
while :; do
    state=$(systemctl is-system-running 2>/dev/null)
    case $state in
        initializing | starting) ;;
        *) break ;;
    esac
    ticks=$((ticks + 1))
    [ $((ticks % 15)) -eq 0 ] && say jobs "$(systemctl list-jobs --no-legend --no-pager --full 2>&1)"
    sleep 2
done
say state "$state"

# What comes up late queues jobs of its own, and a device that does not come is waited for 90 seconds (systemd-system.conf(5),
# DefaultDeviceTimeoutSec=): only what is left after that is stuck.
ticks=0
while :; do
    left=$(systemctl list-jobs --no-legend --no-pager --full 2>/dev/null | grep -v '^No jobs')
    [ -n "$left" ] && [ $ticks -lt 50 ] || break
    ticks=$((ticks + 1))
    sleep 2
done
say jobs-left "$left"

failed=$(systemctl list-units --failed --plain --no-legend --no-pager --full 2>/dev/null)
say failed "$failed"
printf '%s\n' "$failed" | while read -r unit rest; do
    [ -n "$unit" ] || continue
    run "why.$unit" journalctl -b --no-pager -n 20 -u "$unit"
done

file mounts /proc/self/mountinfo
say space "$(df -P -k / /sysroot /var /boot /tmp 2>/dev/null)"
file cmdline /proc/cmdline
file os-release /etc/os-release
file boot-id /proc/sys/kernel/random/boot_id
if [ -r /sys/fs/selinux/enforce ]; then
    file selinux /sys/fs/selinux/enforce
    say denials "$({ journalctl -b --no-pager -o cat 2>/dev/null; cat /var/log/audit/audit.log 2>/dev/null; } |
        grep 'avc:  *denied' | head -n 50)"
fi
[ -r /etc/selinux/config ] && say selinux.config "$(sed -n 's/^SELINUX=//p' /etc/selinux/config)"
run kernel uname -r
run architecture uname -m
run ostree ostree admin status
booted=$(printf '%s\n' "${output:-}" | sed -n 's/^ *\* [^ ]* \([0-9a-f]*\)\..*/\1/p')
[ -n "$booted" ] && run digest ostree show --print-metadata-key=ostree.manifest-digest "$booted"
for origin in /sysroot/state/deploy/*/*.origin; do
    [ -r "$origin" ] && file origin "$origin"
done
if command -v bootc >/dev/null 2>&1; then
    output=$(bootc status --json 2>/dev/null)
    code=$?
    say bootc "$output"
    say bootc.exit "$code"
fi
run times systemd-analyze time
run errors journalctl -b --no-pager -q -p err -n 60

# Four bytes of attributes, then one that is the value.
secure_boot=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -r "$secure_boot" ] && say secure-boot "$(od -An -tu1 "$secure_boot" 2>/dev/null | tr -s ' ' | cut -d ' ' -f 6)"
# Nobody has waited for drivers of devices that nothing needs to come up.
udevadm settle --timeout=90 >/dev/null 2>&1
say tpm "$(cat /sys/class/tpm/tpm*/tpm_version_major 2>/dev/null | head -n 1)"
[ -d /sys/firmware/efi ] && say firmware uefi || say firmware bios

# What it was asked to do besides. Sourced, in a shell of its own, so that it can say things on its way.
errand=${CREDENTIALS_DIRECTORY:-/nowhere}/boot-report.errand
if [ -r "$errand" ]; then
    output=$( (. "$errand") 2>&1)
    code=$?
    say errand "$output"
    say errand.exit "$code"
fi

# Only where it does not share the way with the kernel: it is long. The newest lines, if they are too many.
case $port in
/dev/console | "${BOOT_REPORT_FALLBACK:-}") ;;
*)
    part=0
    journalctl -b --no-pager -o short-monotonic 2>/dev/null | tail -c 3000000 | {
        if command -v base64 >/dev/null 2>&1; then base64 -w 80000; else openssl base64 | tr -d '\n' | fold -w 80000; fi
        echo
    } | while read -r line; do
        [ -n "$line" ] || continue
        printf 'boot-report journal.%s=%s %s\n' "$part" "$line" "${#line}" >&3
        part=$((part + 1))
    done
    ;;
esac

ending=${CREDENTIALS_DIRECTORY:-/nowhere}/boot-report.ending
ending=$(cat "$ending" 2>/dev/null || echo poweroff)
say end ""
exec 3>&-
systemctl --no-block "$ending"
