#!/bin/sh
# First process of a Wine bed's pid namespace: makes its mounts and then only reaps.
#
# It runs in the mount, pid, uts, ipc, cgroup and network namespaces of the bed, as root, with the
# host's tools until pivot_root and the tree's after. No capability for the clock, modules or raw
# I/O is left to it or to anything in it; /proc/sys is read-only, and there is no /sys and no
# device of the host but the memory devices.
#
# usage: wine.sh ROOT SOURCES BYTECODE [COM1 COM2 ...]
#   ROOT      the mounted overlay
#   SOURCES   the project's tree, read-only at /tree (Z:\tree)
#   BYTECODE  a folder that all beds share, at /bytecode: what Python made of the sources
#   COM...    pty slaves that become /dev/com1, /dev/com2, ...
set -eu

root=$1 sources=$2 bytecode=$3
shift 3
caps=-sys_time,-sys_module,-sys_rawio

hostname windows-bed
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/sys"
mount --bind /dev/null "$root/proc/kmsg"
if [ -e "$root/proc/sysrq-trigger" ]; then
    mount --bind /dev/null "$root/proc/sysrq-trigger"
fi
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
number=0
for port in "$@"; do
    number=$((number + 1))
    : >"$root/dev/com$number"
    mount --bind "$port" "$root/dev/com$number"
done
mkdir -p "$root/tree" "$root/bytecode"
mount --bind "$bytecode" "$root/bytecode"
mount --bind "$sources" "$root/tree"
mount -o remount,bind,ro "$root/tree"

cd "$root"
pivot_root . .
umount -l .
cd /
# The shell's `wait` also reaps what was orphaned.
# shellcheck disable=SC2016
exec setpriv "--bounding-set=$caps" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    sh -c ': >/run/ready; while :; do sleep 1 & wait $!; done'
