#!/bin/bash
# dracut module: links /dev/disk/by-id/google-NAME in the initramfs, too, so that the root file
# system may be named by one. dracut reads this file; see dracut.modules(7).

# Without the nvme program disks would go without names: then only if somebody asks for the module.
check() {
	require_binaries nvme || return 255
}

depends() {
	echo udev-rules
}

install() {
	# shellcheck disable=SC2154  # dracut says where things are
	local helper="${udevdir:-/usr/lib/udev}/google_nvme_id"
	# Ours comes first: what is there already, dracut does not replace by what the rules name.
	# shellcheck disable=SC2154
	inst_simple "$moddir/google_nvme_id" "$helper"
	# What the helper calls; nvme may be missing when somebody asks for the module.
	inst_multiple sh tail tr sed ln mkdir mv
	inst_multiple -o nvme "${udevdir:-/usr/lib/udev}/scsi_id"
	inst_rules 65-gce-disk-naming.rules
}
