# Deploys a commit that the harness serves, as an upgrade of the system that runs: staged, so that a reboot finishes it.
# Before come: url=… commit=… names='…' (references that the commit's layers have)
set -e
remote=boot-report
booted=$(ostree admin status | sed -n 's/^\* *\([^ ]*\) \([0-9a-f]*\.[0-9]*\).*/\1 \2/p')
os=${booted% *}
deployment=${booted#* }
[ -n "$os" ] || { echo "ostree admin status names no booted deployment"; exit 1; }

# What somebody has changed, and what they have added, must outlive the upgrade.
echo edited >/etc/boot-report.edit
[ ! -f /etc/hosts ] || grep -q boot-report /etc/hosts || echo '# boot-report' >>/etc/hosts

ostree remote delete --if-exists "$remote"
ostree remote add --no-gpg-verify "$remote" "$url"
tries=0
# The network may need a moment: nothing that was waited for so far depends on it.
# shellcheck disable=SC2086
until said=$(ostree pull --mirror "$remote" $names "$commit" 2>&1); do
    tries=$((tries + 1))
    [ "$tries" -lt 20 ] || { echo "pulling: $said"; exit 1; }
    sleep 2
done
ostree remote delete "$remote"
say upgrade.pulled "$(printf '%s\n' "$said" | tail -n 1)"
# As bootc would: the reference that the machine follows now names the new commit.
for name in $(ostree refs --list ostree/container/image); do
    ostree refs --force --create="$name" "$commit"
done

say upgrade.deploying "$commit"
ostree admin deploy --stage --os="$os" --origin-file="/sysroot/ostree/deploy/$os/deploy/$deployment.origin" "$commit" >/dev/null
ostree admin status | grep -q "$commit.*staged" || { echo "nothing is staged"; exit 1; }
echo "$commit is staged"
