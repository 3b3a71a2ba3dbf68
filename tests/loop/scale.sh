#!/usr/bin/env bash
# Many files and large disks: memory stays within bounds, every lookup is right, and mounting is quick
# because it does not read what it does not need.
#
#     tests/loop/scale.sh [FILES]
#
# FILES (default 100000; in full 1000000): first a tenth of them is made, then the rest. The pool is mounted
# with an index cache of 8 MiB. Then 8 sparse disks of 15 TB.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

count=${1:-100000}
start scale
need_loop_program

# resident FIELD: VmRSS or VmHWM of the daemon, in MiB.
resident() { echo $(($(sed -n "s/^$1:\s*\([0-9]*\) kB/\1/p" "/proc/$DAEMON/status") >> 10)); }

# at_most NAME NUMBER LIMIT UNIT
at_most() {
  if [ "$2" -le "$3" ]; then ok "$1: $2 $4"; else not_ok "$1: $2 $4, more than $3"; fi
}

# mount_cold NAME: from starting the program to the first stat, with nothing in memory; sets TOOK (ms) and
# BYTES (read from the disks).
mount_cold() {
  local began before
  drop_caches
  before=$(bytes_of_disks 3)
  began=$(now_ms)
  pool_mount -o index_cache=8M
  stat "$WORK/mount" >/dev/null
  TOOK=$(($(now_ms) - began))
  BYTES=$(($(bytes_of_disks 3) - before))
  DAEMON=$("$ISOTHERM" status --json "$WORK/mount" | sed -n 's/^ *"pid": \([0-9]*\),.*/\1/p')
  say "scale: $1: mounted after $TOOK ms, $BYTES bytes read from the disks"
}

levels() {
  "$ISOTHERM" status --json "$WORK/mount" | python3 -c '
import json, sys
status = json.load(sys.stdin)
pool = (status[0] if isinstance(status, list) else status)
print(sum(1 for bytes in pool["index_bytes"] if bytes > 0))'
}

# --- many files ----------------------------------------------------------------------------------

make_disks 1800 1800 2000 2000 2200 2200 2400 2400
pool_create "scale$$"
mount_cold "an empty pool"
tenth=$((count / 10))
"$LOOP_PROGRAM" create "$WORK/mount/few" "$tenth" 100
pool_umount
mount_cold "$tenth files"
few=$BYTES
at_most "scale: mount with $tenth files" "$TOOK" 3000 ms
"$LOOP_PROGRAM" create "$WORK/mount/many" $((count - tenth)) 100
pool_sync
at_most "scale: resident set while $count files were made" "$(resident VmHWM)" 200 MiB
pool_umount
mount_cold "$count files"
at_most "scale: mount with $count files" "$TOOK" 3000 ms
at_most "scale: bytes read while mounting, in percent of those with $tenth files" $((BYTES * 100 / few)) 199 %
expect "scale: every lookup of $tenth is right" "$LOOP_PROGRAM" lookups "$WORK/mount/few" "$tenth" 100
expect "scale: every lookup of $((count - tenth)) is right" \
  "$LOOP_PROGRAM" lookups "$WORK/mount/many" $((count - tenth)) 100
at_most "scale: resident set while they were looked up" "$(resident VmHWM)" 200 MiB
if [ "$count" -ge 1000000 ]; then
  if [ "$(levels)" -ge 3 ]; then ok "scale: the index has tables on $(levels) levels"; else
    not_ok "scale: the index has tables on $(levels) levels, not 3"
  fi
fi
pool_check "scale: check"
at_most "scale: resident set after a check" "$(resident VmHWM)" 300 MiB
pool_umount

# --- large disks ---------------------------------------------------------------------------------

for index in "${!DISKS[@]}"; do detach_disk "$index"; done
make_disks 14305115 14305115 14305115 14305115 14305115 14305115 14305115 14305115
began=$(now_ms)
pool_create "large$$"
at_most "scale: create on 8 disks of 15 TB" $(($(now_ms) - began)) 10000 ms
mount_cold "8 disks of 15 TB"
at_most "scale: mount 8 disks of 15 TB" "$TOOK" 3000 ms
sleep 2
at_most "scale: resident set of 8 idle disks of 15 TB" "$(resident VmRSS)" 300 MiB
dd if=/dev/urandom of="$WORK/mount/file" bs=1M count=64 conv=fsync status=none
cp "$WORK/mount/file" "$WORK/copy"
pool_umount
mount_cold "8 disks of 15 TB with a file"
expect "scale: a file on 8 disks of 15 TB" cmp "$WORK/mount/file" "$WORK/copy"
pool_check "scale: check of 8 disks of 15 TB" --deep
pool_umount
