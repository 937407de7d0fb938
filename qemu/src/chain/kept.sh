# What was changed in /etc before the upgrade is still there.
[ "$(cat /etc/boot-report.edit)" = edited ] || { echo "a file that was added to /etc is lost"; exit 1; }
[ ! -f /etc/hosts ] || grep -q '^# boot-report' /etc/hosts || { echo "a change in /etc/hosts is lost"; exit 1; }
