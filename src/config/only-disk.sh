# Nothing is written unless there is one disk, and no other but the medium.
medium=$(findmnt -nro SOURCE /run/install/repo)
parent=$(lsblk -nro PKNAME "$medium" 2>/dev/null | head -n 1)
disks=
for disk in $(lsblk -dnro NAME,TYPE,RO | awk '$2 == "disk" && $3 == 0 && $1 !~ /^(zram|ram|fd|loop|nbd)/ { print $1 }'); do
    case $disk in
    "$parent" | "${medium#/dev/}") ;;
    *) disks="$disks $disk" ;;
    esac
done
set -- $disks
if [ $# -ne 1 ]; then
    echo "this medium installs to the only disk, and $# are there:$disks" | tee /dev/console
    exit 1
fi
echo "ignoredisk --only-use $1" >/tmp/bootpress-disk.ks
