# shellcheck shell=bash
# git: a repository of many commits cloned, packed and checked in the pool; then commits that core.fsync
# covers, with the daemon killed between them.
# shellcheck disable=SC2154

# git as it is without the settings of who runs this.
plain_git() {
  GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git -c user.name=Test -c user.email=test@example.org \
    -c init.defaultBranch=main -c gc.auto=0 -c core.fsync=all -c core.fsyncMethod=fsync "$@"
}

# git_history COMMITS: a history for fast-import: small changes in many files, now and then a large file.
git_history() {
  awk -v commits="$1" -v seed="$SEED" 'BEGIN {
    srand(seed)
    for (i = 1; i <= commits; i++) {
      printf "commit refs/heads/main\ncommitter Test <test@example.org> %d +0000\n", 1000000000 + 60 * i
      printf "data <<END\ncommit %d\nEND\n", i
      for (j = 0; j < 3; j++) {
        file = int(rand() * 400)
        printf "M 100644 inline dir%d/file%d\ndata <<END\n", file % 20, file
        for (line = 0; line < 10 + file; line++)
          print line % 7 == i % 7 ? "line " line " of commit " i " " rand() : "line " line
        print "END"
      }
      if (i % 200 == 0) {
        printf "M 100644 inline large%d\ndata <<END\n", i
        for (line = 0; line < 20000; line++) print rand(), rand()
        print "END"
      }
    }
    print "done"
  }'
}

git_source() {
  plain_git init --quiet --bare "$OUT/source.git" &&
    git_history "$1" | plain_git -C "$OUT/source.git" fast-import --quiet --done
}

git_sound() { plain_git -C "$1" fsck --full --strict --no-progress --no-dangling; }

# A clone through the protocol, one with hard links inside the pool, everything packed anew.
git_work() {
  plain_git clone --quiet --no-local "$OUT/source.git" "$IN/clone" && git_sound "$IN/clone" &&
    plain_git clone --quiet "$IN/clone" "$IN/linked" &&
    plain_git -C "$IN/clone" gc --quiet --prune=now && git_sound "$IN/clone" &&
    plain_git -C "$IN/linked" checkout --quiet HEAD~100 &&
    plain_git -C "$IN/linked" repack -q -a -d -f && git_sound "$IN/linked"
}

# The same commits, and no file of the work trees that differs, read from the disks again.
git_same() {
  local clone
  for clone in clone linked; do
    git_sound "$IN/$clone" || return 1
    # Not from the index: with another time every file is read again.
    find "$IN/$clone" -name .git -prune -o -type f -exec touch {} + &&
      [ -z "$(plain_git -C "$IN/$clone" status --porcelain)" ] || return 1
  done
  [ "$(plain_git -C "$IN/clone" rev-parse main)" = "$(plain_git -C "$OUT/source.git" rev-parse main)" ]
}

# git_writer: commits until something fails. A ref is renamed into place; after the sync it is durable.
git_writer() {
  local count=0
  while :; do
    count=$((count + 1))
    printf '%s %s\n' "$count" "$RANDOM$RANDOM" >"$IN/clone/dir$((count % 20))/new$((count % 50))" || return 0
    plain_git -C "$IN/clone" add --all || return 0
    plain_git -C "$IN/clone" commit --quiet --message "new $count" || return 0
    sync "$IN/clone/.git/refs/heads" || return 0
    plain_git -C "$IN/clone" rev-parse main >>"$OUT/commits" || return 0
  done
}

# What a user does after a crash: takes away the locks of a git that is no more.
git_after_crash() {
  local last ahead
  find "$IN/clone/.git" -name '*.lock' -delete
  git_sound "$IN/clone" || return 1
  last=$(tail -n 1 "$OUT/commits")
  ahead=$(plain_git -C "$IN/clone" rev-list --count "$last..main") || return 1
  if [ "$ahead" -gt 1 ] || [ "$(plain_git -C "$IN/clone" rev-list --count "main..$last")" != 0 ]; then
    echo "main is not at $last, which was synced, nor at the one after it"
    return 1
  fi
  plain_git -C "$IN/clone" reset --quiet --hard
}

# git_round ROUND
git_round() {
  local writer before count waited=0
  before=$(wc -l <"$OUT/commits")
  git_writer >"$OUT/writer" 2>&1 &
  writer=$!
  PIDS+=("$writer")
  until [ "$(wc -l <"$OUT/commits")" -gt "$before" ] || [ "$waited" -ge 300 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
  pause 200 2500
  kill_daemon
  end_pid "$writer"
  mount_after_kill
  count=$(($(wc -l <"$OUT/commits") - before))
  if [ "$count" -lt 1 ]; then not_ok "git $1: nothing was committed: $(tail -n 1 "$OUT/writer")"; fi
  expect "git $1: fsck after $count synced commits and a kill$WITHOUT" git_after_crash
  all_disks_back
}

part_git() {
  local rounds=1 commits=600 round pack
  if $full; then rounds=10 commits=6000; fi
  need 'command -v git' git || return 0
  # What core.fsync names is there since 2.36.
  if ! printf '2.36\n%s\n' "$(git version | awk '{ print $3 }')" | sort --check=quiet --version-sort; then
    not_ok "git: $(git version) does not know core.fsync"
    return 0
  fi
  expect "git: a history of $commits commits" git_source "$commits"
  expect "git: clone, gc, repack, fsck --full" git_work
  "$ISOTHERM" sync "$WORK/mount"
  kill_daemon
  mount_pool
  expect "git: fsck and status after a kill" git_same
  : >"$OUT/commits"
  for ((round = 1; round <= rounds; round++)); do git_round "$round of $rounds"; done
  # The oldest pack's middle.
  pack=$(find "$IN/clone/.git" -name '*.pack' | sort | head -n 1)
  chmod u+w "$pack"
  printf 'altered' | dd of="$pack" bs=1 seek=$(($(stat --format=%s "$pack") / 2)) conv=notrunc status=none
  must_fail "git: an altered pack is seen" git_sound "$IN/clone"
}
