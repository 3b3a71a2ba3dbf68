#!/usr/bin/env bash
# Big numbers: entries of a directory, inodes that the kernel knows, attributes and extents of a file, files
# that are deleted at once. Others go on meanwhile, memory stays within bounds, space comes back.
#
#     tests/loop/limits.sh [--full] [PART...]        parts: directory xattrs extents trees
#
# 1. directory: many entries; each listing is right while names come and go, telldir and seekdir included.
#    Then every one is asked for, so that the kernel knows all of them.
# 2. xattrs: many attributes on a file, large ones among them, after a remount too.
# 3. extents: a file of many pieces, half of it truncated, the rest unlinked.
# 4. trees: rm -r of many small files, killed in the middle; df gives the space back.
#
# Full: a million each, and a thousand attributes; at most 20 minutes on two quiet cores. Short: a 30th of that.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

entries=30000 xattrs=100 pieces=30000 small=30000
lists=300 churn_seconds=4
# A disk that is late is waited for 10 seconds.
wait_ms_max=15000
parts=()
for argument in "$@"; do
  case $argument in
    --full) entries=1000000 xattrs=1000 lists=5000 pieces=1000000 small=1000000 churn_seconds=60 ;;
    directory | xattrs | extents | trees) parts+=("$argument") ;;
    *)
      sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
      exit 2
      ;;
  esac
done
[ "${#parts[@]}" -gt 0 ] || parts=(directory xattrs extents trees)

start limits
make_disks 900 900 950 950 950 1000 1000 1000

directory() { python3 "$ROOT/tests/loop/big_directory.py" "$@"; }
things() { python3 "$ROOT/tests/loop/big_things.py" "$@"; }
available() { stat --file-system --format '%a * %S' "$WORK/mount" | { read -r sum && echo $((sum)); }; }

# timed NAME COMMAND...: one result, with the time it took.
timed() {
  local name=$1 began output
  shift
  began=$(now_ms)
  if output=$("$@" 2>&1); then
    ok "$name: $(($(now_ms) - began)) ms${output:+, $(tail -n 1 <<<"$output")}"
  else
    not_ok "$name: $(tail -n 5 <<<"$output" | tr '\n' ' ')"
  fi
}

# must_fail NAME COMMAND...: the judge sees what was planted, or its silence means nothing.
must_fail() {
  local name=$1
  shift
  if "$@" >/dev/null 2>&1; then not_ok "$name: it is not"; else ok "$name"; fi
}

mount_again() {
  note_peak "$1"
  pool_umount
  pool_mount_foreground
}

# meanwhile: somebody does small things from now on.
meanwhile() {
  python3 "$ROOT/tests/loop/big_things.py" bystander "$WORK/mount/bystander" "$WORK/waits" \
    >"$WORK/bystander.log" 2>&1 &
  BYSTANDER=$!
  PIDS+=("$BYSTANDER")
}

# end_meanwhile NAME: how that went; one that has waited too long, or has ended, or has not begun, is a fault.
end_meanwhile() {
  local rounds=0 longest=0 since waits
  # One that has not ended counts too.
  if read -r rounds longest since <"$WORK/waits"; then
    waits=$(($(now_ms) - since))
    [ "$waits" -le "$longest" ] || longest=$waits
  fi
  if ! kill "$BYSTANDER" 2>/dev/null; then
    not_ok "$1: others did not go on: $(tail -n 1 "$WORK/bystander.log")"
  fi
  wait "$BYSTANDER" 2>/dev/null || true
  if [ "${rounds:-0}" -gt 0 ] && [ "$longest" -le "$wait_ms_max" ]; then
    ok "$1: others went on: $rounds rounds, the longest took $longest ms"
  else
    not_ok "$1: others did ${rounds:-0} rounds, the longest took $longest ms, more than $wait_ms_max"
  fi
  rm -rf "$WORK/mount/bystander" "$WORK/waits"
}

# until_available NAME BYTES: df gives back what was free before, within 2 %, in a bounded time.
until_available() {
  local began=$SECONDS now=0
  pool_sync
  while
    now=$(available)
    [ $((now * 100)) -lt $(($2 * 98)) ] && [ $((SECONDS - began)) -lt 180 ]
  do sleep 1; done
  if [ $((now * 100)) -ge $(($2 * 98)) ]; then
    ok "$1: $((now * 100 / $2)) % of what was free is free again after $((SECONDS - began)) s"
  else
    not_ok "$1: only $((now * 100 / $2)) % of what was free is free again after $((SECONDS - began)) s"
  fi
}

# --- parts ---------------------------------------------------------------------------------------

# kernel_knows: inodes of FUSE filesystems in the kernel's memory.
kernel_knows() { awk '$1 == "fuse_inode" { print $2 }' /proc/slabinfo || echo 0; }

part_directory() {
  local dir=$WORK/mount/many plant before
  mkdir "$dir" "$WORK/mount/few"
  directory make "$WORK/mount/few" 3000
  for plant in lost twice never dead moved; do
    must_fail "directory: a planted fault is seen: $plant" directory churn "$WORK/mount/few" 3000 1 "$plant"
  done
  timed "directory: $entries entries made" directory make "$dir" "$entries"
  note_peak "$entries entries"
  timed "directory: listings while names come and go" directory churn "$dir" "$entries" "$churn_seconds"
  note_peak "listings"
  mount_again "before a remount"
  before=$(kernel_knows)
  timed "directory: each of $entries asked for" directory stat "$dir" "$entries"
  before=$(($(kernel_knows) - before))
  if [ "$before" -ge $((entries * 9 / 10)) ]; then ok "directory: the kernel knows $before inodes more"; else
    not_ok "directory: the kernel knows $before inodes more, not $entries"
  fi
  note_peak "$entries inodes known"
  timed "directory: listings after a remount" directory churn "$dir" "$entries" 1
  meanwhile
  timed "directory: unlinked" directory empty "$dir"
  end_meanwhile "directory"
  expect "directory: it is empty" rmdir "$dir"
  note_peak "directory"
}

part_xattrs() {
  local file=$WORK/mount/attributes
  timed "xattrs: $xattrs set" things set-xattrs "$file" "$xattrs"
  expect "xattrs: read back" things check-xattrs "$file" "$xattrs"
  mount_again "xattrs"
  timed "xattrs: read back after a remount" things check-xattrs "$file" "$xattrs"
  setfattr --name user.0003 --value other "$file"
  must_fail "xattrs: another value is seen" things check-xattrs "$file" "$xattrs"
  setfattr --remove user.0003 "$file"
  must_fail "xattrs: a lost attribute is seen" things check-xattrs "$file" "$xattrs"
  things set-xattrs "$file" "$xattrs"
  timed "xattrs: removed" things remove-xattrs "$file" "$xattrs"
  timed "xattrs: bytes of names that can be listed" things names-of-xattrs "$file.names"
  rm "$file" "$file.names"
  xattrs_listed
  note_peak "xattrs"
}

# xattrs_listed: an attribute of 64 KiB is a block of its own; whoever lists many of them keeps nobody waiting.
xattrs_listed() {
  local file=$WORK/mount/large-attributes
  timed "xattrs: $lists of 64 KiB set" things set-large-xattrs "$file" "$lists"
  mount_again "large attributes"
  meanwhile
  timed "xattrs: $lists of 64 KiB listed by four at once" things list-xattrs "$file" "$lists"
  timed "xattrs: a file with $lists of 64 KiB unlinked" rm "$file"
  end_meanwhile "xattrs"
}

part_extents() {
  local file=$WORK/mount/pieces before half=$((pieces / 2))
  before=$(available)
  timed "extents: $pieces pieces written" things extents "$file" "$pieces"
  note_peak "$pieces extents"
  mount_again "before a remount"
  timed "extents: read back after a remount" things check-extents "$file" 0 "$pieces"
  printf x | dd of="$file" bs=1 seek=$((8192 * 5 + 600)) conv=notrunc status=none
  must_fail "extents: one byte in a hole is seen" things check-extents "$file" 0 "$pieces"
  meanwhile
  timed "extents: truncated to half" truncate --size $((8192 * (half - 1) + 512)) "$file"
  pool_sync
  timed "extents: the rest after that" things check-extents "$file" 6 "$half"
  timed "extents: unlinked" rm "$file"
  until_available "extents" "$before"
  end_meanwhile "extents"
  note_peak "extents"
}

part_trees() {
  local dir=$WORK/mount/tree before begun last
  mkdir "$dir"
  mkdir "$WORK/kept"
  make_oddities "$WORK/kept" 500
  cp -a "$WORK/kept" "$WORK/mount/kept"
  pool_sync
  before=$(available)
  timed "trees: $small files made" things make-tree "$dir" "$small"
  pool_sync
  note_peak "$small small files"
  things remove-tree "$dir" "$small" "$WORK/removed" &
  PIDS+=("$!")
  # Some are gone, and there will be more before the next commit.
  begun=0
  until [ "${begun:-0}" -gt $((small / 10)) ]; do
    sleep 0.01
    read -r begun _ <"$WORK/removed" || begun=0
  done 2>/dev/null
  kill_daemon
  wait "$!" || true
  pool_mount_foreground
  timed "trees: gone after kill -9 in order" things check-removed "$dir" "$small" "$WORK/removed"
  if expect_same "trees: what was kept" "$WORK/kept" "$WORK/mount/kept"; then ok "trees: what was kept is kept"; fi
  last=$dir/$(printf '%04d/%07d' $(((small - 1) / 1000)) $((small - 1)))
  mv "$last" "$WORK/mount/aside"
  must_fail "trees: a file that is gone too early is seen" things check-removed "$dir" "$small" "$WORK/removed"
  mv "$WORK/mount/aside" "$last"
  printf '%10d %10d\n' "$small" "$small" >"$WORK/removed"
  must_fail "trees: a file that is back is seen" things check-removed "$dir" "$small" "$WORK/removed"
  meanwhile
  timed "trees: rm -r" rm -r "$dir"
  end_meanwhile "trees"
  until_available "trees" "$before"
  if expect_same "trees: what was kept" "$WORK/kept" "$WORK/mount/kept"; then ok "trees: and is kept after that"; fi
  note_peak "trees"
}

pool_create "limits$$"
pool_mount_foreground
for part in "${parts[@]}"; do "part_$part"; done
pool_check "limits: check"
note_peak "check"
pool_umount
errors=$(grep -aE '^isotherm: |panicked' "$WORK/daemon.log" |
  grep -avE '^isotherm: (warn|info|debug|trace): ' || true)
if [ -z "$errors" ]; then ok "limits: no error in the daemon's log"; else
  not_ok "limits: the daemon's log: $(head -n 3 <<<"$errors" | tr '\n' ' ')"
fi
