#!/bin/sh
# First process of a bed's pid namespace: makes the mounts of an instance and becomes systemd.
#
# It runs in the mount, pid, uts, ipc, cgroup and network namespaces of the bed, as root, with the
# host's tools until pivot_root and the guest's after.  The rules that keep the host safe are here:
# /proc/sys read-only except net, /proc/irq a copy, /sys read-only unless asked otherwise, kernel log
# and sysrq masked, no capability for the clock, modules or raw I/O.
#
# usage: boot.sh ROOT STATE SYSFS-MODE DMI CONSOLE [SERIAL]
#   ROOT     the mounted overlay           STATE  the bed's folder: boot_id, sys/ trees
#   SYSFS-MODE  ro | captured | rw         DMI    folder with the fake DMI id files, or ""
#   CONSOLE, SERIAL  pty slaves that become /dev/console and /dev/ttyS0
set -eu

root=$1 state=$2 sysfs=$3 dmi=$4 console=$5 serial=${6-}
caps=-sys_time,-sys_module,-sys_rawio

mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"

mount_sys() {
    case $sysfs in
    ro) mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys" ;;
    rw) mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys" ;;
    captured)
        # Writes land in sys/upper and never reach the kernel that all beds share.
        mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$state/sys/real"
        mount -t overlay -o "lowerdir=$state/sys/fake:$state/sys/real,\
upperdir=$state/sys/upper,workdir=$state/sys/work" overlay "$root/sys"
        mount --bind "$state/sys/real/class/net" "$root/sys/class/net"
        return
        ;;
    esac
    if [ -n "$dmi" ]; then
        # Only /sys/class is stacked: the rest of sysfs, and class/net, which changes when links
        # come and go, stay the kernel's own.
        mount -t overlay -o "ro,lowerdir=$state/sys/fake/class:$root/sys/class" \
            overlay "$state/sys/class"
        mount --bind "$root/sys/class/net" "$state/sys/class/net"
        mount --rbind "$state/sys/class" "$root/sys/class"
    fi
}
mount_sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs "$root/run"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
: >"$root/dev/console"
mount --bind "$console" "$root/dev/console"
if [ -n "$serial" ]; then
    : >"$root/dev/ttyS0"
    mount --bind "$serial" "$root/dev/ttyS0"
fi

# A remounted bind of net inside a read-only bind of sys: the inner one inherits read-only.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,rw,nosuid,nodev,noexec "$root/proc/sys/net"
# The kernel's boot id is the host's; every boot of a bed needs one of its own.
mount --bind "$state/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount --bind /dev/null "$root/proc/kmsg"
if [ -e "$root/proc/sysrq-trigger" ]; then
    mount --bind /dev/null "$root/proc/sysrq-trigger"
fi
# Which processor serves an interrupt of the host is none of a bed's business: it has a copy.
if [ -d "$root/proc/irq" ]; then
    mkdir -p "$state/irq"
    cp -R "$root/proc/irq/." "$state/irq/" 2>/dev/null || :
    chmod -R u+w "$state/irq"
    mount --bind "$state/irq" "$root/proc/irq"
fi

cd "$root"
pivot_root . .
umount -l .
cd /
exec setpriv "--bounding-set=$caps" env -i container=oci TERM=dumb \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=journal --show-status=1 </dev/console >/dev/console 2>&1
