# shellcheck shell=bash
# Loads that check themselves: stress-ng's file system stressors, dbench, bonnie++ and fio.
# shellcheck disable=SC2154

# stressors: those that run here, one a line, in random order.
stressors() {
  stress-ng --class 'filesystem?' 2>&1 | sed -n 's/.*stressors: //p' | tr ' ' '\n' | sed '/^$/d' | sort |
    comm -23 - <(awk '!/^#/ && NF { print $1 }' "$here/stress-ng.excluded" | sort) |
    shuf --random-source=<(yes "$SEED")
}

# stress NAME SECONDS: exit code 0, something was done, and nothing left out because it cannot be.
stress() {
  local log=$OUT/stress.$1 count
  (cd "$IN/stress" && timeout --kill-after=10 $((120 + $2)) stress-ng "--$1" "$STRESS_COUNT" --timeout "$2" \
    --verify --metrics --temp-path "$IN/stress") >"$log" 2>&1 || { tail -n 3 "$log"; return 1; }
  if grep -aE 'skipping|skipped|not supported|unsupported|not implemented' "$log"; then return 1; fi
  count=$(awk -v name="$1" '$4 == name { print $5 }' "$log" | head -n 1)
  [ "${count:-0}" -gt 0 ] || { echo "it did nothing"; return 1; }
}

loads_stress() {
  local name count=0 failed='' seconds=1 names
  STRESS_COUNT=1
  mapfile -t names < <(stressors)
  if $full; then seconds=5 STRESS_COUNT=2; else names=("${names[@]:0:4}"); fi
  mkdir -p "$IN/stress"
  for name in "${names[@]}"; do
    if stress "$name" "$seconds" >"$OUT/stress"; then count=$((count + 1)); else
      not_ok "loads: stress-ng $name: $(tr '\n' ' ' <"$OUT/stress")"
      failed=yes
    fi
    note_peak "stress-ng $name"
  done
  if [ -z "$failed" ] && [ "$count" -gt 0 ]; then
    if ! $full; then names=("${names[*]}"); else names=("all"); fi
    ok "loads: stress-ng, $count stressors of $seconds s: ${names[*]}"
  elif [ -z "$failed" ]; then
    not_ok "loads: stress-ng names no stressors"
  fi
}

# loads_dbench NAME OPTION...
loads_dbench() {
  local name=$1 seconds=2
  shift
  if $full; then seconds=30; fi
  mkdir -p "$IN/dbench"
  if timeout 300 dbench --directory="$IN/dbench" --timelimit="$seconds" "$@" 4 >"$OUT/dbench" 2>&1; then
    ok "loads: dbench, $name: $(tail -n 1 "$OUT/dbench" | tr -s ' ')"
  else
    not_ok "loads: dbench, $name: $(tail -n 3 "$OUT/dbench" | tr '\n' ' ')"
  fi
}

loads_bonnie() {
  local mib=64 files=1 quick=-f
  if $full; then mib=512 files=16 quick=; fi
  mkdir -p "$IN/bonnie"
  # Short: without the tests that put and get single bytes.
  timeout 900 bonnie++ ${quick:+"$quick"} -u root -d "$IN/bonnie" -r $((mib / 2)) -s "$mib" -n "$files:16384:0:16" \
    -q -m isotherm
}

# fio_jobs OPTION...: every job writes its own file and reads it back with its checksums; one way of
# reaching the file each.
fio_jobs() {
  local each=(--directory="$IN/fio" --verify_fatal=1 --randseed="$SEED" --group_reporting)
  mkdir -p "$IN/fio"
  fio --size="${FIO_MIB}M" "${each[@]}" "$@" --output="$OUT/fio" \
    --name=random --rw=randwrite --bsrange=512-128k --blockalign=512 --ioengine=psync --verify=crc32c --fsync=64 \
    --name=direct --rw=randwrite --bs=16k --direct=1 --ioengine=libaio --iodepth=16 --verify=xxhash \
    --name=ring --rw=randwrite --bs=4k --ioengine=io_uring --iodepth=16 --verify=md5 \
    --name=mapped --rw=randwrite --bs=4k --ioengine=mmap --verify=sha1 \
    --name=stream --rw=write --bs=1M --ioengine=psync --verify=crc64 \
    --name=durable --rw=randwrite --bs=8k --io_size=$((FIO_MIB / 8))M --ioengine=psync --sync=1 --verify=crc32c \
    --name=small --rw=randwrite --bs=2k --nrfiles=200 --ioengine=psync --verify=crc32c
}

part_loads() {
  local seconds
  need 'command -v stress-ng' stress-ng && loads_stress
  if need 'command -v dbench' dbench; then
    loads_dbench "4 clients"
    if $full; then
      loads_dbench "4 clients, every directory synced" --sync-dir
      loads_dbench "4 clients, every write synced" --sync
    fi
  fi
  note_peak dbench
  need 'command -v bonnie++' bonnie++ && expect "loads: bonnie++" loads_bonnie
  note_peak bonnie++
  need 'command -v fio' fio || return 0
  FIO_MIB=4
  if $full; then FIO_MIB=128; fi
  seconds=$SECONDS
  expect "loads: fio writes and verifies, seven ways" fio_jobs
  pool_umount
  mount_pool
  expect "loads: fio verifies after a remount" fio_jobs --verify_only
  say "fio: $((SECONDS - seconds)) s"
}
