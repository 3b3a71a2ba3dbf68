# shellcheck shell=bash
# CPython's own tests of files and what is built on them, run in the pool and beside it; what they find
# here must be what they find there, but for what stands in cpython.listed.
# shellcheck disable=SC2154

CPYTHON_SHORT=(test_fcntl test_file test_fileio test_glob test_mmap test_os test_posix test_shutil
  test_tempfile)
CPYTHON_FULL=(test_bufio test_bz2 test_compileall test_dbm test_dbm_dumb test_dbm_gnu test_dbm_ndbm
  test_filecmp test_fileinput test_fileutils test_genericpath test_gzip test_import test_io test_largefile
  test_linecache test_lzma test_mailbox test_memoryio test_netrc test_pathlib test_posixpath test_py_compile
  test_shelve test_sqlite3 test_stat test_tarfile test_unicode_file test_unicode_file_functions
  test_univnewlines test_zipapp test_zipfile test_zipfile64 test_zipimport)

# cpython_run DIRECTORY RESULT TEST...: its own exit code does not count, its results do. What the caller has
# set for Python would change what the tests find (PYTHONDONTWRITEBYTECODE does).
cpython_run() {
  local directory=$1 result=$2 resources=()
  shift 2
  if $full; then resources=(-u largefile); fi
  mkdir -p "$directory"
  (unset "${!PYTHON@}" && cd "$directory" && TMPDIR=$directory timeout --kill-after=30 1500 "$python" -m test "${resources[@]}" \
    -j 2 --timeout 600 --tempdir "$directory" --junit-xml "$result.xml" "$@") >"$result.log" 2>&1 || true
}

part_cpython() {
  local tests=("${CPYTHON_SHORT[@]}") version found beside
  if $full; then tests+=("${CPYTHON_FULL[@]}"); fi
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  need "$python -c 'import test.test_tarfile'" "libpython$version-testsuite" || return 0
  cpython_run "$WORK/beside" "$OUT/host" "${tests[@]}" &
  beside=$!
  PIDS+=("$beside")
  cpython_run "$IN/within" "$OUT/pool" "${tests[@]}"
  wait "$beside" || true
  forget_pid "$beside"
  rm -rf "$WORK/beside"
  if found=$("$python" "$here/cpython.py" "$OUT/host.xml" "$OUT/pool.xml" "$here/cpython.listed" 2>&1); then
    ok "cpython $version: ${#tests[@]} files of tests, $found"
  else
    not_ok "cpython $version: $(tail -n 20 <<<"$found" | tr '\n' ';')"
  fi
}
