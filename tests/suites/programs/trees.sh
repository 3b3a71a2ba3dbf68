# shellcheck shell=bash
# cp, tar and rsync: trees with hard links, holes, attributes and ACLs brought into the pool, around in it
# and out again, with a kill of the daemon in between.
# shellcheck disable=SC2154

# trees_source DIRECTORY: what one tool or the other forgets easily.
trees_source() {
  local dir=$1 count=$2 index other
  mkdir -p "$dir"/{odd,links,holes,attributes}
  make_oddities "$dir/odd" $((count * 5))
  # tar does not keep sockets, and the large hole takes long to read six times.
  rm -f "$dir/odd/sock" "$dir/odd/sparse"
  for ((index = 0; index < count; index++)); do
    echo "$index" >"$dir/links/$index"
    for ((other = 0; other < index % 5; other++)); do
      mkdir -p "$dir/links/$other"x
      ln "$dir/links/$index" "$dir/links/${other}x/$index"
    done
  done
  for ((index = 0; index < count / 10; index++)); do trees_holes "$dir/holes/$index"; done
  for ((index = 0; index < count / 10; index++)); do trees_attributes "$dir/attributes/$index" "$index"; done
  cp -a /usr/share/zoneinfo "$dir/zoneinfo"
}

# trees_holes FILE: pieces at random places, the end a hole or not.
trees_holes() {
  local piece
  : >"$1"
  for piece in 1 2 3 4; do
    head -c $((RANDOM * 2)) /dev/urandom |
      dd of="$1" bs=4096 seek=$((RANDOM % 500 + piece)) conv=notrunc iflag=fullblock status=none
  done
  [ $((RANDOM % 2)) = 0 ] || truncate --size "+$((RANDOM * 30))" "$1"
}

# trees_attributes PATH INDEX: files and directories with attributes of all kinds.
trees_attributes() {
  local name
  if [ $(($2 % 3)) = 0 ]; then mkdir "$1"; else echo "$2" >"$1"; fi
  for name in a b c d; do
    setfattr -n "user.$name$2" -v "0x$(printf '%02x' $((RANDOM % 256)) $((RANDOM % 256)) 0)" "$1"
  done
  setfattr -n trusted.for_root -v "$2" "$1"
  setfacl -m "u:$((1000 + $2)):r,g:$((2000 + $2)):rw,m::rw" "$1"
  if [ -d "$1" ]; then setfacl -m "d:u:$((1000 + $2)):rwx,d:o::-" "$1"; fi
}

trees_cp() { cp -a --sparse=always "$1" "$2"; }

trees_tar() {
  mkdir "$2"
  tar --create --format=posix --acls --xattrs --xattrs-include='*' --sparse --directory="$1" . |
    tar --extract --acls --xattrs --xattrs-include='*' --same-permissions --numeric-owner --directory="$2"
}

trees_rsync() { rsync -aHAXS --numeric-ids "$1/" "$2/"; }

# trees_differ SOURCE TARGET: fails, and says how, unless they are the same.
trees_differ() {
  local output
  output=$(rsync -aHAXcn --numeric-ids --delete --itemize-changes --modify-window=-1 "$1/" "$2/" 2>&1) &&
    [ -z "$output" ] && return 0
  head -n 4 <<<"$output"
  return 1
}

# trees_sparse SOURCE TARGET: the holes have stayed holes, but for what a tool's step makes of their edges.
trees_sparse() {
  local source target
  source=$(du --summarize --block-size=1 "$1/holes" | cut -f 1)
  target=$(du --summarize --block-size=1 "$2/holes" | cut -f 1)
  [ "$target" -le $((source + source / 4)) ] || { echo "$target bytes instead of $source"; return 1; }
}

part_trees() {
  local source=$WORK/source tool count=40
  if $full; then count=1000; fi
  need 'command -v rsync' rsync && need 'command -v setfacl' acl && need 'command -v setfattr' attr || return 0
  trees_source "$source" "$count"
  for tool in cp tar rsync; do
    expect "trees: $tool into the pool" "trees_$tool" "$source" "$IN/$tool"
  done
  "$ISOTHERM" sync "$WORK/mount"
  kill_daemon
  mount_pool
  for tool in cp tar rsync; do
    expect "trees: what $tool brought is the same after a kill" trees_differ "$source" "$IN/$tool"
    expect "trees: $tool keeps holes" trees_sparse "$source" "$IN/$tool"
  done
  # Each copy once around in the pool, by another tool, and out again by the third.
  expect "trees: rsync from cp's" trees_rsync "$IN/cp" "$IN/around"
  expect "trees: tar out of the pool" trees_tar "$IN/around" "$WORK/back"
  expect "trees: what came back is the same" trees_differ "$source" "$WORK/back"
  if $full; then
    expect "trees: cp inside the pool" trees_cp "$IN/tar" "$IN/copied"
    expect "trees: what cp copied inside is the same" trees_differ "$source" "$IN/copied"
  fi
  setfattr --remove=trusted.for_root "$IN/tar/attributes/1"
  must_fail "trees: a lost attribute is seen" trees_differ "$source" "$IN/tar"
  rm -rf "$source" "$WORK/back"
}
