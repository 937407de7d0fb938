# Makes the deployment before the one that runs the one that the next boot runs.
set -e
ostree admin set-default 1 >/dev/null
echo "the deployment before is the next again"
