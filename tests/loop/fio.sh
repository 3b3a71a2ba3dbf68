#!/usr/bin/env bash
# fio writes at random in mixed sizes with fsync and checksums in every block; verified after a
# remount, then with two disks taken away.
#
#     tests/loop/fio.sh [MIB per job]
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

size=${1:-192}
start fio
command -v fio >/dev/null || skip_all "fio: fio is not installed"
make_disks 900 1000 1000 1100 1100 1200 1200 1300
pool_create "fio$$"

# job NAME OPTION...: the same jobs to write and to verify.
job() {
  local phase=$1
  shift
  fio --name=mixed --directory="$WORK/mount" --size="${size}M" --numjobs=2 --rw=randwrite \
    --bsrange=512-256k --blockalign=512 --ioengine=psync --verify=crc32c --verify_fatal=1 \
    --randseed="$SEED" --group_reporting --output="$WORK/fio.$phase" "$@" &&
  fio --name=aligned --directory="$WORK/mount" --size="${size}M" --rw=randwrite \
    --bsrange=4k-1M --blockalign=4k --ioengine=psync --direct=1 --verify=crc32c --verify_fatal=1 \
    --randseed="$SEED" --output="$WORK/fio.$phase.direct" "$@"
}

pool_mount
expect "fio: writes mixed sizes with fsync" job write --do_verify=0 --fsync=16
pool_umount
pool_mount
drop_caches
expect "fio: verified after a remount" job verify --verify_only
take_away 1
take_away 6
drop_caches
expect "fio: verified with two disks taken away" job degraded --verify_only
pool_umount || true
detach_disk 1
detach_disk 6
pool_mount
drop_caches
expect "fio: verified after a remount without them" job remounted --verify_only
for file in mixed.0.0 aligned.0.0; do
  printf spoilt | dd of="$WORK/mount/$file" bs=1 seek=$((size << 19)) conv=notrunc status=none
  if job spoilt --verify_only >/dev/null 2>&1; then not_ok "fio: six spoilt bytes of $file are not seen"; else
    ok "fio: six spoilt bytes of $file are seen"
  fi
  rm "$WORK/mount/$file"
done
pool_umount
