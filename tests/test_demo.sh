#!/bin/sh
# SPDX-License-Identifier: MIT
# The test runs filemap demo with short delays. The rows, the table of --all and the JSON must be
# well-formed. filemap must have a row wherever the kernel has one. The run must fail if the file
# changes meanwhile. Everything that a run sets up must be undone, also after SIGINT, SIGTERM and
# SIGKILL. The test asserts no figures: the demonstration's own exit status judges the figures,
# with delays of a second.
set -eu
filemap=${FILEMAP:?the filemap command}
dir=$(mktemp -d)
demo=
cleanup() {
	[ -z "$demo" ] || kill -KILL "$demo" 2>/dev/null || :
	rm -rf "$dir"
}
trap cleanup EXIT
mkdir "$dir/tmp"
export TMPDIR="$dir/tmp"
head -c 33554432 /dev/urandom >"$dir/file"

fail() {
	echo "$*" >&2
	exit 1
}

# left_behind PID: print what the run of that process left behind.
left_behind() {
	ls -A "$TMPDIR"
	grep "$TMPDIR" /proc/self/mounts || :
	cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep "$TMPDIR" || :
	ls -d /sys/fs/cgroup/*/filemap-demo."$1" 2>/dev/null || :
	ls /var/tmp/filemap-demo-*."$1" 2>/dev/null || :
}

# expect_clean PID WORDS: wait until nothing is left. After SIGKILL another process undoes the
# setup, and ends a moment later.
expect_clean() {
	i=0
	while [ -n "$(left_behind "$1")" ]; do
		i=$((i + 1))
		[ "$i" -lt 100 ] || fail "$2: left behind: $(left_behind "$1")"
		sleep 0.1
	done
}

# expect_ran STATUS: status 1 is noise of this machine if all reasons are about waits.
expect_ran() {
	[ "$1" -eq 77 ] && { cat err >&2; exit 77; }
	[ "$1" -le 1 ] || fail "status $1: $(cat out err)"
	if grep -h '^NOT SHOWN' out err | grep -vE 'waited|samples a round|had its error after|control: not done|([0-9]+) of \1 loads ended'; then
		fail "not shown, and it is no noise"
	fi
}

cd "$dir"

# ---- a row for each situation; on a busy machine a round may not end in time, and the run is tried
# again
for try in 1 2 3; do
	status=0
	"$filemap" demo --file file --delay 50 --rounds 1 --only slow-store --only error-retry \
		>out 2>err || status=$?
	expect_ran "$status"
	grep -q '^NOT SHOWN: .*not done after' out err || break
done
wait='[0-9.]+ [um]s( STALL\*?)? +[a-z-]+'
if [ "$(id -u)" -eq 0 ]; then
	grep -qE "^slow-store +$wait +$wait *\$" out || fail "no row of slow-store: $(cat out)"
	grep -qE "^error-retry +$wait +$wait *\$" out || fail "no row of error-retry: $(cat out)"
else
	grep -qE "^slow-store +$wait +skipped: needs root" out ||
		fail "no row of slow-store: $(cat out)"
	grep -q "^error-retry  *skipped: needs root" out || fail "no row of error-retry: $(cat out)"
fi
! grep -qE '^[a-z-]+ +(control|filemap-hold|kernel-control) ' out || fail "rows of --all: $(cat out)"
grep -vE '^(NOT SHOWN|filemap|filemap-hold|kernel-mmap):|skipped' out | awk 'length($0) > 80' >long
[ ! -s long ] || fail "longer than 80 columns: $(cat long)"

# ---- each STALL of a row is red on a terminal, unless NO_COLOR is set; a pipe has no colours
if command -v script >/dev/null && [ "$(id -u)" -eq 0 ] && [ "${1:-none}" = none ]; then
	line="$filemap demo --file file --delay 200 --rounds 1 --only proc-mem --way kernel-mmap"
	TERM=xterm script -qec "$line" /dev/null >out 2>&1 </dev/null || :
	TERM=xterm NO_COLOR=1 script -qec "$line" /dev/null >plain 2>&1 </dev/null || :
	TERM=xterm $line >pipe 2>err || :
	red=$(printf '\033[1;31m')
	grep -aqE '^proc-mem ' out || fail "no row on the terminal: $(cat out)"
	! grep -aE '^proc-mem .*STALL' out | grep -vF "${red}STALL" || fail "a STALL is not red"
	! grep -aF "$red" plain || fail "NO_COLOR does not count"
	! grep -aF "$red" pipe || fail "colours in a pipe"
fi

# ---- the table of --all
for try in 1 2 3; do
	status=0
	"$filemap" demo --all --file file --delay 50 --rounds 1 --only slow-store >out 2>err ||
		status=$?
	expect_ran "$status"
	grep -q '^NOT SHOWN: .*not done after' out err || break
done
for way in control filemap filemap-hold kernel-mmap; do
	grep -q "^slow-store  *$way " out || fail "no row of $way: $(cat out)"
done
for probe in map-unmap advise stats fault proc-cmdline proc-smaps proc-maps reader; do
	grep -qE "^slow-store  *filemap  *$probe  *[1-9]" out || fail "no row of $probe: $(cat out)"
done
grep -q '^slow-store  *filemap-hold  *map-unmap .*STALL$' out || fail "hold did not stall"
[ "$(tail -n 3 out | cut -d: -f1 | tr '\n' ' ')" = "filemap filemap-hold kernel-mmap " ] ||
	fail "not three lines at the end: $(tail -n 4 out)"

# ---- JSON, all situations; a situation that cannot run gives its reason. Sanitized builds are
# slow, so they run one situation of each kind.
situations="slow-store fuse-stopped blkio-memcg error-retry proc-mem journal write-journal write-frozen dirty-throttle unmap-dirty"
only=
if [ "${1:-none}" != none ]; then
	situations="write-journal unmap-dirty"
	for one in $situations; do
		only="$only --only $one"
	done
fi
status=0
"$filemap" demo --file file --delay 50 --rounds 1 --json $only >out 2>err || status=$?
expect_ran "$status"
if command -v python3 >/dev/null; then
	python3 - out err $situations <<'END' >why 2>&1 || fail "JSON: $(cat out why)"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
seen = set()
for row in rows:
    key = (row["way"], row["situation"], row.get("probe"))
    assert key not in seen, key
    seen.add(key)
    if "skipped" in row:
        assert row["skipped"], row
        continue
    # A probe that a stall stops may have no sample at all.
    assert row["n"] > 0 or row["way"] in ("kernel-mmap", "filemap-hold"), row
    assert row["delay_ms"] > 0, row
    assert 0 <= row["p50_us"] <= row["p99_us"] <= row["max_us"], row
# filemap runs in each situation, and so wherever the kernel runs. On a busy machine its only round
# may not end in time.
failures = open(sys.argv[2]).read()
for situation in sys.argv[3:]:
    assert (any(k[:2] == ("filemap", situation) for k in seen)
            or "NOT SHOWN: %s, filemap: not done" % situation in failures), situation
# The fork probe runs in these two situations only.
for row in rows:
    if row.get("probe") == "fork":
        assert row["situation"] in ("write-journal", "write-frozen"), row
if any(r["situation"] == "write-frozen" and "skipped" not in r for r in rows):
    assert any(k == ("filemap", "write-frozen", "fork") for k in seen), seen
readers = [r for r in rows if r["way"] == "filemap" and r.get("probe") == "reader"]
assert readers and all(r["n"] >= 20 for r in readers), readers
END
fi
expect_clean 0 "a whole run"
[ "${1:-none}" = none ] || exit 0 # the rest tests processes, and what they set up

# ---- the run fails if the file's bytes change
"$filemap" demo --file file --delay 200 --rounds 2 --only slow-store --way filemap >out 2>err &
demo=$!
while kill -0 "$demo" 2>/dev/null; do
	head -c 33554432 /dev/urandom | dd of=file conv=notrunc bs=1M status=none
done
status=0
wait "$demo" || status=$?
demo=
[ "$status" -eq 1 ] && grep -q '^NOT SHOWN: filemap, slow-store: .*\(failed\|bytes\)' out ||
	fail "the file changed, status $status: $(cat out err)"

# ---- a picture
if command -v gnuplot >/dev/null; then
	status=0
	"$filemap" demo --file file --delay 20 --rounds 1 --only slow-store --plot a.svg \
		>out 2>err || status=$?
	expect_ran "$status"
	grep -q '</svg>' a.svg || fail "no picture: $(cat out err)"
	grep -q '>filemap<' a.svg || fail "no filemap in the picture"
	! grep -q '>filemap-hold<' a.svg || fail "the picture has ways of --all"
fi

# ---- a signal in the middle of a run
for situation in slow-store fuse-stopped blkio-memcg journal write-frozen dirty-throttle unmap-dirty; do
	for signal in INT TERM KILL; do
		"$filemap" demo --file file --delay 300 --rounds 20 --only "$situation" \
			>out 2>err &
		demo=$!
		i=0
		# Wait until the run has set something up, or has ended because the setup is not
		# possible here.
		while [ -z "$(left_behind "$demo")" ] && kill -0 "$demo" 2>/dev/null &&
			[ "$i" -lt 100 ]; do
			i=$((i + 1))
			sleep 0.1
		done
		sleep 0.3
		kill -"$signal" "$demo" 2>/dev/null || :
		wait "$demo" || :
		expect_clean "$demo" "$situation, SIG$signal"
		demo=
	done
done
