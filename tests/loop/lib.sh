# shellcheck shell=bash
# What the scripts in tests/loop share: disks on loop devices, a pool on them, and cleaning up.
#
# Everything made is remembered by its exact name and taken down in a trap, in reverse order.
# Results are lines: `ok NAME: detail`, `not ok NAME: detail`, `skipped: NAME: reason`.
# With POOL_KIND=btrfs the same scripts run on btrfs (raid6), to try the scripts themselves.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export LC_ALL=C
POOL_KIND=${POOL_KIND:-isotherm}
ISOTHERM=${ISOTHERM:-$ROOT/target/release/isotherm}
LOOP_PROGRAM=${LOOP_PROGRAM:-}
SEED=${ISOTHERM_SEED:-$(( $(od -An -N4 -tu4 /dev/urandom) % 1000000 ))}
RANDOM=$SEED

WORK=
declare -a LOOPS=() MOUNTS=() PIDS=() DISKS=()
PASSED=0
FAILED=0
# The budgets [R27], and what is not budgeted: a daemon has no more than this in memory, whatever runs.
PEAK_MIB_MAX=1536
PEAK_MIB=0

say() { printf '  %s\n' "$*"; }
ok() { PASSED=$((PASSED + 1)); printf 'ok %s\n' "$*"; }
not_ok() { FAILED=$((FAILED + 1)); printf 'not ok %s (seed %s)\n' "$*" "$SEED"; }
skip_all() { printf 'skipped: %s\n' "$*"; exit 0; }
now_ms() { date +%s%3N; }

# One result from a command: `expect NAME COMMAND...`.
expect() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then ok "$name"; else
    not_ok "$name: $(tail -n 5 <<<"$output" | tr '\n' ' ')"
  fi
}

start() {
  [ "$(id -u)" = 0 ] || skip_all "$1: needs root for loop devices"
  [ -c /dev/fuse ] || skip_all "$1: needs /dev/fuse"
  losetup --find >/dev/null 2>&1 || skip_all "$1: no loop devices here"
  local top=${ISOTHERM_TEST_DIR:-/var/tmp}
  WORK=$(mktemp -d "$top/isotherm-$1.XXXXXX")
  trap clean_up EXIT
  trap 'exit 130' INT TERM
  mkdir "$WORK/mount"
  say "$1: seed $SEED, in $WORK"
}

# is_ours PID: it still is a child of this script. The number of one that ended long ago may be somebody else's.
is_ours() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -r _ parent _ <<<"${stat##*) }"
  [ "$parent" = "$$" ]
}

clean_up() {
  local status=$? entry
  set +e
  [ "$PEAK_MIB" = 0 ] || peak_is_bounded "${WORK##*/isotherm-}"
  for entry in "${PIDS[@]}"; do ! is_ours "$entry" || kill -9 "$entry" 2>/dev/null; done
  for ((i = ${#MOUNTS[@]} - 1; i >= 0; i--)); do
    umount "${MOUNTS[i]}" 2>/dev/null || umount --lazy "${MOUNTS[i]}" 2>/dev/null
  done
  for entry in "${PIDS[@]}"; do wait "$entry" 2>/dev/null; done
  for entry in "${LOOPS[@]}"; do losetup --detach "$entry" 2>/dev/null; done
  if [ -n "$WORK" ] && [ "$FAILED" = 0 ] && [ "$status" = 0 ]; then
    rm -rf "$WORK"
  elif [ -n "$WORK" ]; then
    # Keep the logs of a failure, not its gigabytes (unless KEEP=1).
    [ "${KEEP:-}" = 1 ] || find "$WORK" -xdev -size +64M -delete 2>/dev/null
    say "kept: $WORK"
  fi
  [ "$FAILED" = 0 ] && exit "$status"
  exit 1
}

# --- disks ---------------------------------------------------------------------------------------

# attach FILE: a loop device over it, with direct I/O where the host file system can.
attach() {
  local device
  device=$(losetup --find --show --direct-io=on "$1" 2>/dev/null) ||
    device=$(losetup --find --show "$1")
  LOOPS+=("$device")
  ATTACHED=$device
}

detach() {
  losetup --detach "$1"
  local kept=() entry
  for entry in "${LOOPS[@]}"; do [ "$entry" = "$1" ] || kept+=("$entry"); done
  LOOPS=("${kept[@]}")
}

# make_disks MIB...: sparse files disk0... of these sizes with loop devices; fills DISKS.
make_disks() {
  DISKS=()
  local size index=0
  for size in "$@"; do
    rm -f "$WORK/disk$index"
    truncate --size "${size}M" "$WORK/disk$index"
    attach "$WORK/disk$index"
    DISKS+=("$ATTACHED")
    index=$((index + 1))
  done
}

attach_disks() {
  local index
  for index in "${!DISKS[@]}"; do
    [ -n "${DISKS[index]}" ] || { attach "$WORK/disk$index"; DISKS[index]=$ATTACHED; }
  done
}

# detach_disk INDEX: unplugs a disk of a closed pool.
detach_disk() { detach "${DISKS[$1]}"; DISKS[$1]=; }

# bytes_of_disks FIELD: of all together, since they were attached: 3 read, 7 written (/sys/block/*/stat).
bytes_of_disks() {
  local device fields sum=0
  for device in "${DISKS[@]}"; do
    read -ra fields <"/sys/block/${device#/dev/}/stat"
    sum=$((sum + fields[$1 - 1]))
  done
  echo $((sum * 512))
}

# present: the devices that are attached, one a line.
present() { local device; for device in "${DISKS[@]}"; do [ -z "$device" ] || echo "$device"; done; }

# take_away INDEX: breaks a disk under an open pool; every I/O on it fails from now on. A write that was
# on its way when the file was cut makes it long again: then it is cut once more.
take_away() {
  local tries=0
  while
    truncate --size 0 "$WORK/disk$1"
    losetup --set-capacity "${DISKS[$1]}"
    tries=$((tries + 1))
    ! is_gone "${DISKS[$1]}" && [ "$tries" -lt 20 ]
  do sleep 0.1; done
  probe_gone "${DISKS[$1]}"
}

# is_gone DEVICE: a direct read fails or returns nothing.
is_gone() {
  local bytes
  bytes=$(timeout 10 dd if="$1" bs=4096 count=1 iflag=direct 2>/dev/null | wc -c)
  [ "$bytes" = 0 ]
}

# probe_gone DEVICE: ends the script if the disk is not away.
probe_gone() {
  is_gone "$1" || { not_ok "probe: $1 still answers a direct read"; exit 1; }
}

# probe_detached INDEX: ends the script if any device still leads to this disk. A device that somebody had
# open when it was detached goes a moment later: an io_uring's files are let go of after its process.
probe_detached() {
  local tries=0
  while [ -n "$(losetup --associated "$WORK/disk$1")" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { not_ok "probe: disk $1 is still attached"; exit 1; }
    sleep 0.1
  done
}

# --- the pool ------------------------------------------------------------------------------------

# pool_create NAME [REDUNDANCY]
pool_create() {
  mapfile -t devices < <(present)
  if [ "$POOL_KIND" = btrfs ]; then
    mkfs.btrfs --quiet --nodiscard --force --data raid6 --metadata raid1c3 "${devices[@]}"
  else
    "$ISOTHERM" create "$1" "${devices[@]}" ${2:+--redundancy "$2"} >"$WORK/create.log"
  fi
}

# pool_mount [OPTION...]: mounts what is present at $WORK/mount and returns when it is there.
pool_mount() {
  mapfile -t devices < <(present)
  if [ "$POOL_KIND" = btrfs ]; then
    btrfs device scan "${devices[@]}" >/dev/null
    local ro=
    [ "${1:-}" != --read-only ] || ro=,ro
    mount -t btrfs -o "degraded,nodiscard$ro" "${devices[0]}" "$WORK/mount"
  else
    "$ISOTHERM" mount "${devices[@]}" "$WORK/mount" "$@" >>"$WORK/mount.log" 2>&1
  fi
  remember_mount
}

remember_mount() {
  local entry
  for entry in "${MOUNTS[@]}"; do [ "$entry" != "$WORK/mount" ] || return 0; done
  MOUNTS+=("$WORK/mount")
}

# pool_mount_foreground: the same, with the daemon as our child; its number is DAEMON.
pool_mount_foreground() {
  mapfile -t devices < <(present)
  "$ISOTHERM" mount "${devices[@]}" "$WORK/mount" --foreground "$@" >>"$WORK/daemon.log" 2>&1 &
  DAEMON=$!
  PIDS+=("$DAEMON")
  remember_mount
  local waited=0
  # A dead mount point is still a mount point: this daemon must answer for it.
  until daemon_answers; do
    if ! kill -0 "$DAEMON" 2>/dev/null || [ "$waited" -ge 600 ]; then
      say "the daemon did not mount: $(tail -n 3 "$WORK/daemon.log" | tr '\n' ' ')"
      return 1
    fi
    sleep 0.05
    waited=$((waited + 1))
  done
}

# Status ends with 1 if the pool is degraded: what it says counts here, not how it ends.
daemon_answers() {
  local status
  status=$("$ISOTHERM" status --json "$WORK/mount" 2>/dev/null) || true
  grep -q "\"pid\": $DAEMON," <<<"$status"
}

# pool_umount: a daemon that is our child must end as one that is content.
pool_umount() {
  if [ "$POOL_KIND" = btrfs ]; then
    umount "$WORK/mount"
    return
  fi
  note_peak "umount"
  "$ISOTHERM" umount "$WORK/mount"
  if [ -n "${DAEMON:-}" ]; then
    local status=0
    wait "$DAEMON" 2>/dev/null || status=$?
    # 127: it is not our child.
    [ "$status" = 0 ] || [ "$status" = 127 ] || not_ok "umount: the daemon ended with status $status"
  fi
  DAEMON=
}

# kill_daemon: of pool_mount_foreground.
kill_daemon() {
  note_peak "kill -9"
  kill -9 "$DAEMON"
  wait "$DAEMON" 2>/dev/null || true
  DAEMON=
}

# note_peak WHAT: how much the daemon had in memory at most; PEAK_MIB is the most of all.
note_peak() {
  local pid=${DAEMON:-} peak
  [ -n "$pid" ] || pid=$({ "$ISOTHERM" status --json "$WORK/mount" 2>/dev/null || true; } |
    sed -n 's/^ *"pid": \([0-9]*\),.*/\1/p')
  peak=$(awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/${pid:-none}/status" 2>/dev/null || true)
  [ "${peak:-0}" -gt "$PEAK_MIB" ] || return 0
  PEAK_MIB=$peak
  say "at most $peak MiB in the daemon's memory until now: $1"
}

# peak_is_bounded NAME
peak_is_bounded() {
  if [ "$PEAK_MIB" -gt 0 ] && [ "$PEAK_MIB" -le "$PEAK_MIB_MAX" ]; then
    ok "${1%%.*}: the daemon had at most $PEAK_MIB MiB"
  else
    not_ok "${1%%.*}: the daemon had $PEAK_MIB MiB"
  fi
}

pool_sync() {
  if [ "$POOL_KIND" = btrfs ]; then sync --file-system "$WORK/mount"; else "$ISOTHERM" sync "$WORK/mount"; fi
}

# pool_check NAME [--deep]: the mounted pool agrees with itself [R18].
pool_check() {
  local name=$1 output
  shift
  [ "$POOL_KIND" = isotherm ] || return 0
  if output=$("$ISOTHERM" check "$WORK/mount" "$@" 2>&1); then
    ok "$name: $(head -n 1 <<<"$output")"
  else
    not_ok "$name: $(head -n 5 <<<"$output" | tr '\n' ' ')"
  fi
}

drop_caches() { sync; echo 3 >/proc/sys/vm/drop_caches; }

# --- trees ---------------------------------------------------------------------------------------

# make_oddities DIRECTORY [FILES]: what ordinary trees have little of: every kind of file, odd names,
# attributes, times, holes, many files in one directory.
make_oddities() {
  local dir=$1 many=${2:-5000} long
  mkdir -p "$dir/empty" "$dir/many" "$dir/acl"
  long=$(printf 'n%.0s' $(seq 255))
  : >"$dir/$long"
  printf x >"$dir/"$'\xff\xfe not utf8'
  printf x >"$dir/"$'new\nline'
  printf x >"$dir/-dash \$(touch x) 'quote'"
  (cd "$dir/many" && seq 1 "$many" | xargs touch)
  echo one >"$dir/one" && ln "$dir/one" "$dir/two" && ln "$dir/one" "$dir/empty/three"
  ln -s "$(printf 't%.0s' $(seq 4095))" "$dir/long-target"
  ln -s ../one "$dir/many/relative"
  mkfifo "$dir/fifo"
  mknod "$dir/null" c 1 3
  mknod "$dir/disk" b 7 200
  python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$dir/sock" \
    2>/dev/null || true
  install -m 4755 /bin/true "$dir/suid" && install -m 2755 /bin/true "$dir/sgid"
  mkdir -m 1777 "$dir/sticky" && mkdir -m 2775 "$dir/setgid"
  chown 12345:54321 "$dir/one"
  truncate --size 1G "$dir/sparse" && printf tail | dd of="$dir/sparse" bs=1 seek=700000001 \
    conv=notrunc status=none
  setfattr -n user.text -v "$(head -c 2000 /dev/zero | tr '\0' v)" "$dir/one"
  setfattr -n user.empty "$dir/many"
  setfattr -n trusted.root -v 0x00ff "$dir/one"
  setfacl -m u:1234:rw,g:4321:r "$dir/one"
  setfacl -m d:u:1234:rwx,d:g:4321:rx "$dir/acl"
  touch -d '1969-12-31 23:59:58.123456789 UTC' "$dir/empty"
  touch -d '2199-01-02 03:04:05.987654321 UTC' "$dir/suid"
}

# same_tree SOURCE TARGET: prints what differs, contents compared by checksum; nothing if all is well.
same_tree() {
  rsync --archive --hard-links --acls --xattrs --checksum --dry-run --delete --modify-window=-1 \
    --itemize-changes "$1/" "$2/" 2>&1
}

# expect_same NAME SOURCE TARGET
expect_same() {
  local name=$1 output
  if output=$(same_tree "$2" "$3") && [ -z "$output" ]; then return 0; fi
  not_ok "$name: $2 differs: $(head -n 5 <<<"$output" | tr '\n' ' ')"
  return 1
}

# --- the load and its checker --------------------------------------------------------------------

# Builds tests/loop.rs if its path was not handed in.
need_loop_program() {
  [ -z "$LOOP_PROGRAM" ] || return 0
  LOOP_PROGRAM=$(cd "$ROOT" && cargo test --no-run --test loop --message-format=json 2>/dev/null |
    grep '"name":"loop"' | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
  [ -x "$LOOP_PROGRAM" ] || { not_ok "tests/loop.rs does not build"; exit 1; }
}

# start_load ROUND: the load in its own directory of the pool; its log outside.
start_load() {
  LOG=$WORK/log.$1
  rm -f "$LOG" "$LOG.cut"
  "$LOOP_PROGRAM" load --dir "$WORK/mount/r$1" --log "$LOG" --seed $((SEED + $1)) \
    >"$WORK/load.log" 2>&1 &
  LOAD=$!
  PIDS+=("$LOAD")
}

# after_cut: waits for the load to notice. Processes may hang in a hung disk's wake: bounded.
after_cut() {
  local waited=0
  while kill -0 "$LOAD" 2>/dev/null && [ "$waited" -lt 300 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
}

# check_round ROUND: is what came back allowed? Then freezes it: from now on it may not change.
check_round() {
  "$LOOP_PROGRAM" check --dir "$WORK/mount/r$1" --log "$WORK/log.$1" >"$WORK/check.$1" &&
    "$LOOP_PROGRAM" freeze "$WORK/mount/r$1" "$WORK/frozen.$1"
}

# check_frozen ROUND: what was checked once is still exactly that.
check_frozen() {
  [ ! -e "$WORK/frozen.$1" ] ||
    "$LOOP_PROGRAM" frozen "$WORK/mount/r$1" "$WORK/frozen.$1" >"$WORK/check.$1"
}

# forget_round ROUND: makes room.
forget_round() {
  [ "$1" -lt 1 ] || rm -rf "$WORK/mount/r$1" "$WORK/log.$1" "$WORK/log.$1.cut" "$WORK/frozen.$1"
}

# judge ROUND NAME: checks this round and the two before; one result.
judge() {
  local round=$1 name=$2 old
  if ! check_round "$round"; then
    not_ok "$name: $(grep -m 3 FAULT "$WORK/check.$round" | tr '\n' ' ')"
    cp "$WORK/check.$round" "$WORK/log.$round" "$WORK/failed-$round" 2>/dev/null || true
    return 0
  fi
  for old in $((round - 1)) $((round - 2)); do
    if ! check_frozen "$old"; then
      not_ok "$name: round $old changed since: $(grep -m 3 FAULT "$WORK/check.$old" | tr '\n' ' ')"
      return 0
    fi
  done
  forget_round $((round - 2))
  ok "$name: $(sed -n 's/^check: //p' "$WORK/check.$round")"
}

# --- the layer: disks with a volatile cache ------------------------------------------------------

# layer_up [--lie]: puts the files disk0... under the layer and loop devices over that.
layer_up() {
  mkdir -p "$WORK/layer" "$WORK/control"
  rm -f "$WORK"/control/*
  local files=() index
  for index in "${!DISKS[@]}"; do files+=("$WORK/disk$index"); done
  "$LOOP_PROGRAM" layer --mount "$WORK/layer" --control "$WORK/control" "$@" "${files[@]}" \
    >>"$WORK/layer.log" 2>&1 &
  LAYER=$!
  PIDS+=("$LAYER")
  MOUNTS+=("$WORK/layer")
  local waited=0
  until mountpoint --quiet "$WORK/layer"; do
    sleep 0.1
    waited=$((waited + 1))
    [ "$waited" -lt 100 ] || { not_ok "the layer does not mount"; exit 1; }
  done
  for index in "${!DISKS[@]}"; do
    attach "$WORK/layer/disk$index"
    DISKS[index]=$ATTACHED
  done
}

# layer_cut: the power is gone. What was in the caches is lost; the files are what the platters hold.
layer_cut() { kill -9 "$LAYER"; wait "$LAYER" 2>/dev/null || true; }

# layer_down: takes the loop devices and the dead mount away, after the daemon is gone.
layer_down() {
  local index
  for index in "${!DISKS[@]}"; do [ -z "${DISKS[index]}" ] || detach_disk "$index"; done
  kill -9 "$LAYER" 2>/dev/null || true
  umount --lazy "$WORK/layer"
  local kept=() entry
  for entry in "${MOUNTS[@]}"; do [ "$entry" = "$WORK/layer" ] || kept+=("$entry"); done
  MOUNTS=("${kept[@]}")
}
