#!/usr/bin/env bash
# One bit turns over in every structure that `isotherm inspect` names, on real block devices: in one copy, and
# in as many as the redundancy covers. What reads is what was written, a check finds and mends it, and `inspect`
# shows the platter mended. A disk of which no label is left is refused, and the pool mounts without it.
#
#     tests/loop/rot.sh [--full]
#
# Short: one place of each structure in each round. Full: all of them in turn.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

full=false
[ "${1:-}" != --full ] || full=true
start rot
[ "$POOL_KIND" = isotherm ] || skip_all "rot: speaks of isotherm's structures"

# flip DEVICE BYTE...: turns one bit of each over, on the platter.
flip() {
  local device=$1
  shift
  [ $# -gt 0 ] || return 0
  python3 -c '
import os, sys
disk = os.open(sys.argv[1], os.O_RDWR)
for at in map(int, sys.argv[2:]):
    byte = os.pread(disk, 1, at)[0]
    os.pwrite(disk, bytes([byte ^ 8]), at)
os.fsync(disk)' "$device" "$@"
  blockdev --flushbufs "$device"
  FLIPS=$((FLIPS + $#))
}

# place WHERE START LENGTH: the first, middle or last byte.
place() {
  case $1 in
    0) echo "$2" ;;
    1) echo $(($2 + $3 / 2)) ;;
    *) echo $(($2 + $3 - 1)) ;;
  esac
}

# used_bytes DEVICE OFFSET LENGTH: without the zeros at the end, which no checksum covers.
used_bytes() {
  dd if="$1" bs=4096 iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none |
    python3 -c 'import sys; print(len(sys.stdin.buffer.read().rstrip(b"\0")))'
}

# frame_bytes DEVICE OFFSET: the length that a structure's frame states.
frame_bytes() { od -An -tu4 -j $(($2 + 20)) -N 4 "$1" | tr -d ' '; }

inspect() {
  blockdev --flushbufs "$2"
  "$ISOTHERM" inspect "$@" 2>&1
}

# labels_of DEVICE: the offsets of the copies of its label.
labels_of() { inspect label "$1" | sed -n 's/^label copy [0-9]* at //p'; }

# slots_of DEVICE: offset and sequence of the roots in its slots; sequence 0: none.
slots_of() {
  inspect root "$1" | awk '/^slot/ { at = $4; seen[at] = 0; order[n++] = at }
    /^sequence/ { seen[at] = $2 } END { for (i = 0; i < n; i++) print order[i], seen[order[i]] }'
}

# shards_of DEVICE: kind, object, shard, byte of the header, bytes of the payload; of those that are good: what was
# spoilt before and has moved since would be whole again.
shards_of() {
  local area
  area=$("$ISOTHERM" inspect layout "$1" | sed -n 's/^data area .* units at \([0-9]*\),.*/\1/p')
  inspect object "$1" | awk -v area="$area" '/all match$/ { print $5, $4, $7, area + $2 * 4096, $11 }'
}

# entries_of DEVICE: batch, byte of the entry, bytes of its header and payload together, epoch.
entries_of() {
  inspect journal "$1" | awk '/^entry at/ { at = $5 } /^epoch/ { epoch = $2 } /^batch/ { batch = $2 }
    /^payload  .*bytes/ { print batch, at, 128 + $2, epoch }'
}

# good_entries BATCH: on how many disks inspect finds it whole.
good_entries() {
  local device
  for device in $(present); do
    inspect journal "$device" | awk -v wanted="$1" '/^entry at/ { batch = 0 } /^batch/ { batch = $2 }
      /^payload .*matches/ && batch == wanted { print }'
  done | wc -l
}

same() {
  if expect_same "$1" "$WORK/source" "$WORK/mount/tree"; then ok "$1: reads as it was written"; fi
}

# mends NAME [by-check]: checks until nothing is found any more; says how much was found at first. By-check:
# nobody else can have mended it.
mends() {
  local name=$1 tries=0 output first
  if output=$("$ISOTHERM" check "$WORK/mount" --deep 2>/dev/null); then
    if [ "${2:-}" = by-check ]; then not_ok "$name: the check found nothing"; else ok "$name: nothing is left to mend"; fi
    return
  fi
  first=$(tail -n 1 <<<"$output")
  if grep -q '^LOST' <<<"$output"; then not_ok "$name: $(grep -m 3 '^LOST' <<<"$output" | tr '\n' ' ')"; fi
  until output=$("$ISOTHERM" check "$WORK/mount" --deep 2>/dev/null); do
    tries=$((tries + 1))
    if [ "$tries" -gt 60 ]; then
      not_ok "$name: is not mended: $(head -n 4 <<<"$output" | tr '\n' ' ')"
      return
    fi
    sleep 0.5
  done
  ok "$name: found and mended: $first"
}

# labels_are_good NAME: no disk has a copy that cannot be used.
labels_are_good() {
  local device bad=
  for device in $(present); do
    bad+=$(inspect label "$device" | grep unusable || true)
  done
  if [ -z "$bad" ]; then ok "$1: inspect shows all copies of all labels"; else not_ok "$1: $bad"; fi
}

# spoilt NAME COUNT WANTED: how many inspect shows spoilt before they are mended, and how many were.
spoilt() {
  if [ "$2" = "$3" ] && [ "$2" -gt 0 ]; then ok "$1: inspect shows all $2 spoilt"; else
    not_ok "$1: inspect shows $2 spoilt, not $3"
  fi
}

# --- rounds --------------------------------------------------------------------------------------

# labels SHIFT COPY...: these copies on every disk; the places differ from disk to disk.
labels() {
  local shift=$1 device index=0 offsets copy at bad=0 name
  shift
  name="labels, copies $*, shift $shift"
  for device in $(present); do
    mapfile -t offsets < <(labels_of "$device")
    at=()
    for copy in "$@"; do at+=("$(place $(((index + shift) % 3)) "${offsets[copy]}" 4096)"); done
    flip "$device" "${at[@]}"
    bad=$((bad + $(inspect label "$device" | grep -c unusable || true)))
    index=$((index + 1))
  done
  spoilt "$name" "$bad" $((6 * $#))
}

label_rounds() {
  local shift
  for shift in $shifts; do
    for copies in 1 "0 2"; do
      # shellcheck disable=SC2086
      labels "$shift" $copies
      pool_mount
      same "labels, copies $copies"
      pool_umount
      labels_are_good "labels, copies $copies"
    done
  done
  # Behind the back of a pool that is mounted: all three of one disk.
  pool_mount
  local device=${DISKS[3]} offsets
  mapfile -t offsets < <(labels_of "$device")
  flip "$device" $((offsets[0] + 1000)) $((offsets[1] + 1000)) $((offsets[2] + 1000))
  spoilt "labels, all of a disk while mounted" "$(inspect label "$device" | grep -c unusable || true)" 3
  mends "labels, all of a disk while mounted" by-check
  labels_are_good "labels, all of a disk while mounted"
  pool_umount
}

# slots_are_good NAME
slots_are_good() {
  local device bad=
  for device in $(present); do bad+=$(slots_of "$device" | awk '$2 == 0'); done
  if [ -z "$bad" ]; then ok "$1: inspect shows a root in every slot"; else not_ok "$1: slots $bad"; fi
}

# flip_roots SHIFT: the newest root on two disks, the one before on two, both on one.
flip_roots() {
  local device index=0 wanted at length bad=0
  for device in $(present); do
    case $index in 0 | 1) wanted=newest ;; 2 | 3) wanted=oldest ;; 4) wanted=both ;; *) wanted=none ;; esac
    while read -r at _; do
      length=$(frame_bytes "$device" "$at")
      flip "$device" "$(place $(((index + $1) % 3)) "$at" "$length")"
    done < <(slots_of "$device" | sort -k2n | case $wanted in
      newest) tail -n 1 ;; oldest) head -n 1 ;; both) cat ;; none) true ;;
    esac)
    bad=$((bad + $(slots_of "$device" | awk '$2 == 0' | wc -l)))
    index=$((index + 1))
  done
  spoilt "roots, shift $1" "$bad" 6
}

root_rounds() {
  local shift
  for shift in $shifts; do
    flip_roots "$shift"
    pool_mount
    same "roots, shift $shift"
    pool_umount
    slots_are_good "roots, shift $shift"
    pool_mount
    flip_roots $((shift + 1))
    mends "roots while mounted, shift $shift" by-check
    slots_are_good "roots while mounted, shift $shift"
    pool_umount
  done
}

# good_shards: object and shard of all of which inspect finds a header and all cells, one a line.
good_shards() {
  local device
  for device in $(present); do inspect object "$device" | awk '/all match$/ { print $4, $7 }'; done
}

# flip_shards WHAT SHIFT SHARD...: header or payload of these shards of every object there is, of the index's
# tables and of what the root names too. Remembers all in ALL, and those of files in SPOILT.
flip_shards() {
  local what=$1 shift=$2 device kind object shard at length bytes left
  shift 2
  SPOILT=() ALL=()
  for device in $(present); do
    bytes=()
    while read -r kind object shard at length; do
      [[ " $* " == *" $shard "* ]] || continue
      if [ "$what" = header ]; then length=4096; else
        at=$((at + 4096))
        length=$(used_bytes "$device" "$at" "$length")
        # What lies where something else was written since has no bytes of its own.
        [ "$length" -gt 0 ] || continue
      fi
      bytes+=("$(place $(((shard + shift) % 3)) "$at" "$length")")
      ALL+=("$object $shard")
      [ "$kind" != Data ] || SPOILT+=("$object $shard")
    done < <(shards_of "$device")
    flip "$device" "${bytes[@]}"
  done
  left=$(good_shards | grep -xFf <(printf '%s\n' "${ALL[@]}") || true)
  [ -z "$left" ] || say "not spoilt: $(tr '\n' ',' <<<"$left")"
  left=$(grep -c . <<<"$left" || true)
  spoilt "$what of shards $*, ${#SPOILT[@]} of files" $((${#ALL[@]} - left)) ${#ALL[@]}
}

# shards_are_good NAME: of what was spoilt of files every shard is on some disk, with all its cells. (Tables and
# what the root names are written anew, as others; the check has read all copies of those.)
shards_are_good() {
  local one text
  text=$(good_shards)
  for one in "${SPOILT[@]}"; do
    grep -qxF "$one" <<<"$text" || { not_ok "$1: inspect shows no good copy of object and shard $one"; return; }
  done
  ok "$1: inspect shows ${#SPOILT[@]} shards mended"
}

shard_rounds() {
  local shift what shards
  for shift in $shifts; do
    for what in payload header; do
      for shards in 0 "1 2" "3 4"; do
        # shellcheck disable=SC2086
        flip_shards "$what" "$shift" $shards
        pool_mount
        same "$what of shards $shards"
        # Whoever reads asks no header.
        mends "$what of shards $shards" "$([ "$what" = payload ] || echo by-check)"
        shards_are_good "$what of shards $shards"
        pool_umount
      done
    done
    pool_mount
    flip_shards payload $((shift + 1)) 0 3
    drop_caches
    mends "shards 0 and 3 while mounted" by-check
    same "shards 0 and 3 while mounted"
    shards_are_good "shards 0 and 3 while mounted"
    pool_umount
  done
}

# log_round SHIFT: two copies of a batch while mounted, one in its header, one in its payload.
log_round() {
  local device batch at length last=0 now covered bad=0 good
  pool_mount
  head -c 30000 /dev/urandom >"$WORK/logged"
  cp "$WORK/logged" "$WORK/mount/logged"
  sync "$WORK/mount/logged"
  for device in $(present); do
    now=$(entries_of "$device" | sort -k4n -k1n | tail -n 1 | cut -d' ' -f1)
    [ "${now:-0}" -le "$last" ] || last=$now
  done
  good=$(good_entries "$last")
  for device in $(present); do
    while read -r batch at length _; do
      if [ "$batch" != "$last" ] || [ "$bad" -ge 2 ]; then continue; fi
      flip "$device" "$(place $(($1 + 2 * bad)) "$at" "$length")"
      bad=$((bad + 1))
    done < <(entries_of "$device" | sort -k4n | tail -n 3)
  done
  spoilt "log" $((good - $(good_entries "$last"))) 2
  mends "log, shift $1"
  covered=$(inspect root "${DISKS[0]}" | sed -n 's/^replay after *batch \([0-9]*\) .*/\1/p' | sort -n | tail -n 1)
  if [ "$covered" -ge "$last" ]; then
    ok "log: inspect shows a root that needs no batch up to $covered"
  else
    not_ok "log: the newest root begins after $covered, and batch $last was spoilt"
  fi
  if cmp -s "$WORK/logged" "$WORK/mount/logged"; then ok "log: reads as it was written"; else
    not_ok "log: what was logged reads otherwise"
  fi
  same "log"
  pool_umount
}

# No label is left on one disk.
refused_round() {
  local device=${DISKS[5]} offsets report
  mapfile -t offsets < <(labels_of "$device")
  flip "$device" $((offsets[0] + 2000)) $((offsets[1] + 2000)) $((offsets[2] + 2000))
  if [ "$(inspect label "$device" | grep -c unusable)" = 3 ]; then ok "refused: inspect shows no label"; else
    not_ok "refused: a label is left"
  fi
  : >"$WORK/mount.log"
  pool_mount
  report=$(grep -m 1 "$device is refused: no copy of its label can be used" "$WORK/mount.log" || true)
  if [ -n "$report" ]; then ok "refused: ${report:0:200}"; else
    not_ok "refused: the mount said: $(tail -n 3 "$WORK/mount.log" | tr '\n' ' ')"
  fi
  same "refused: without that disk"
  report=$("$ISOTHERM" status "$WORK/mount" || true)
  if grep -q "is refused" <<<"$report" && grep -qi missing <<<"$report"; then
    ok "refused: status says so"
  else
    not_ok "refused: status says: $(tail -n 5 <<<"$report" | tr '\n' ' ')"
  fi
  pool_umount
}

FLIPS=0
shifts=$((RANDOM % 3))
if $full; then shifts="0 1 2"; fi
make_disks 256 256 256 256 256 256
pool_create "rot$$" ec:3+2
mkdir "$WORK/source"
for size in 100 9000 70000 3000000 8000000; do head -c "$size" /dev/urandom >"$WORK/source/f$size"; done
cp -a /usr/share/zoneinfo/Europe "$WORK/source/" 2>/dev/null || true
pool_mount
cp -a "$WORK/source" "$WORK/mount/tree"
pool_sync
pool_umount
pool_mount
pool_umount

began=$(now_ms)
label_rounds
root_rounds
shard_rounds
for shift in $shifts; do log_round "$shift"; done
refused_round
say "rot: $FLIPS bits turned over, $(($(now_ms) - began)) ms"
