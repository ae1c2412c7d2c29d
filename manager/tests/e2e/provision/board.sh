#!/bin/sh
# Runs a board out of a directory: board.sh ROOT, in mount and UTS namespaces of its own. /run is as on Debian: in memory,
# and nothing there can be executed.
set -eu
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755,nosuid,nodev,noexec run "$root/run"
mkdir -p "$root/run/systemd/system" "$root/run/sshd" "$root/run/lock"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
cat "$root/etc/hostname" >/proc/sys/kernel/hostname
cd "$root"
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/sbin/sshd -D -e -o UsePAM=no
