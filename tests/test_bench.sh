#!/bin/sh
# SPDX-License-Identifier: MIT
# The test runs filemap bench on a small file. Every row must have its fields, with possible
# figures. Wrong input must give one line. A way that cannot run must give its reason. Bytes that
# differ must be found. What a run sets up must be undone, also after a signal. The test computes
# each target's figure from the rows again, and the verdict from the figure. The test asserts
# nothing about speed.
set -eu
filemap=${FILEMAP:?the filemap command}
sanitizer=${1:-none}
dir=$(mktemp -d)
bench=
cleanup() {
	[ -z "$bench" ] || kill -KILL "$bench" 2>/dev/null || :
	rm -rf "$dir"
}
trap cleanup EXIT
mkdir "$dir/tmp"
export TMPDIR="$dir/tmp"
head -c 33554432 /dev/urandom >"$dir/file"
cd "$dir"

fail() {
	echo "$*" >&2
	exit 1
}

# machine PID: print what a run of that process may change on this machine. Other processes may
# run here too, and may have loop devices.
machine() {
	ls -A "$TMPDIR"
	for readahead in /sys/block/*/queue/read_ahead_kb; do
		case $readahead in
		/sys/block/loop*) ;;
		*) cat "$readahead" 2>/dev/null || : ;;
		esac
	done
	cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep "$TMPDIR" || :
	ls -d /sys/fs/cgroup/*/filemap-bench."$1" 2>/dev/null || :
}
machine none >before
sha256sum file >sum

expect_clean() {
	i=0
	while machine "$1" >after && ! cmp -s before after; do
		i=$((i + 1))
		[ "$i" -lt 100 ] || fail "$2: not undone: $(diff before after)"
		sleep 0.1
	done
}

# bad STATUS WORD ARGUMENTS...: check that the arguments are refused with this status and with one
# line that has WORD.
bad() {
	want=$1 word=$2
	shift 2
	status=0
	"$filemap" bench "$@" >out 2>err </dev/null || status=$?
	[ "$status" -eq "$want" ] || fail "bench $*: status $status, not $want: $(cat err)"
	[ ! -s out ] || fail "bench $*: wrote to stdout"
	[ "$(wc -l <err)" -eq 1 ] || fail "bench $*: not one line: $(cat err)"
	grep -qF -- "$word" err || fail "bench $*: does not name $word: $(cat err)"
}

# ---- wrong input
mkfifo fifo
: >empty
bad 2 sequential-ish --file file sequential-ish
bad 2 seq-warm --file file seq-cold seq-warm
bad 2 --rounds --file file --rounds 0
bad 2 --rounds --file file --rounds 100
bad 2 --rounds --file file --rounds x
bad 2 --ways --file file --ways kernel-mmap,magic
bad 2 --ways --file file --ways ''
bad 2 --size --size 1M
bad 2 --size --file file --size 64M
bad 2 --quick --quick=yes
bad 2 --frobnicate --frobnicate
bad 2 --cell --cell 0
bad 2 --cell --cell 7
bad 1 nowhere --file nowhere
bad 1 empty --file empty
bad 1 "$dir" --file "$dir"
bad 1 fifo --file fifo
bad 1 --plot --file file --plot nowhere/pictures
bad 1 --plot --file file --plot empty
bad 1 --markdown --file file --markdown nowhere/page.md
bad 1 --markdown --file file --markdown .

# ---- JSON: each row of each workload. Sanitized builds are slow, so they run one workload of
# each kind.
some=
[ "$sanitizer" = none ] || some="seq-cold rand-nowait loop-over-budget fault-cost-4k map-scale metadata rand-write"
status=0
"$filemap" bench --file file --quick --rounds 1 --json $some >out 2>err </dev/null &
bench=$!
wait "$bench" || status=$?
if [ "$status" -eq 77 ]; then
	cat err >&2
	exit 77
fi
[ "$status" -eq 0 ] || fail "status $status: $(cat err)"
if grep -v '^filemap: bench: ' err; then
	fail "unexpected words on stderr"
fi
if [ "$sanitizer" = none ] && command -v python3 >/dev/null; then
	python3 - out <<'END' || fail "JSON: wrong content, see above"
import json, sys
fields = ["workload", "way", "threads", "seconds", "ops", "bytes", "ns_per_op", "device_bytes",
          "written_bytes", "cpu_s", "rss_mib", "ratio_vs_kernel"]
lines = [json.loads(line) for line in open(sys.argv[1])]
rows = [line for line in lines if "verdict" not in line]
targets = lines[len(rows):]
by = {}
for row in rows:
    assert list(row) == fields, row
    key = (row["workload"], row["threads"], row["way"])
    assert key not in by, key
    by[key] = row
    assert row["seconds"] > 0 and row["ops"] > 0 and row["ns_per_op"] > 0 and row["rss_mib"] > 0, row
    assert row["bytes"] % row["ops"] == 0, row
    assert abs(row["ns_per_op"] * row["ops"] / (row["seconds"] * 1e9) - 1) < 1e-4, row
    assert row["ratio_vs_kernel"] is None or row["ratio_vs_kernel"] > 0, row
    if row["way"] == "kernel-mmap":
        assert row["ratio_vs_kernel"] == 1, row
    # What is written within the measured time is also synced within that time.
    if row["workload"] in ("rand-write", "seq-write", "write-sync"):
        assert row["written_bytes"] >= row["bytes"], row
    if row["way"] == "limit":
        assert row["device_bytes"] >= row["bytes"], row
    if row["workload"].startswith(("fault-cost", "map-", "write-fault")) and row["way"] != "kernel-mmap":
        assert row["device_bytes"] == 0, row
want = {"seq-cold": [1], "seq-cold-over-budget": [1], "rand-cold": [1, 4, 16], "rand-nowait": [1],
        "zipf-over-budget": [1], "backward": [1], "strided": [1], "multi-stream": [1], "loop-over-budget": [1],
        "hot": [1], "fault-cost-4k": [1], "fault-cost-64k": [1], "contended": [16], "map-one": [1],
        "map-scale": [1], "metadata": [1], "rand-write": [1], "seq-write": [1], "write-sync": [1],
        "write-fault": [1]}
for workload, sets in want.items():
    for threads in sets:
        assert (workload, threads, "filemap") in by, (workload, threads)
for workload in ("fault-cost-4k", "fault-cost-64k", "fault-cost-2m"):
    assert (workload, 1, "bare-copy") in by, workload

# With one round, the rows have everything that the figures need.
def part(row, over, under):
    return row[over] / row[under] if row[under] else 0

figures = {
    "speed": lambda row: 1 / row["ns_per_op"],
    "time per operation": lambda row: row["ns_per_op"],
    "CPU time per byte": lambda row: part(row, "cpu_s", "bytes"),
    "device bytes per operation": lambda row: part(row, "device_bytes", "ops"),
    "device bytes per wanted byte": lambda row: part(row, "device_bytes", "bytes"),
}
judged = set()
for target in targets:
    assert target["verdict"] in ("met", "missed"), target
    way, what = target["target"].split(": ")
    what, against = what.split(", ") if ", " in what else (what, None)
    judged.add((target["workload"], what, against))
    assert way == target["way"], target
    figure, low, high = target["figure"], target["lowest"], target["highest"]
    assert figure == low == high, target
    if what in figures:
        want = figures[what](by[target["workload"], target["threads"], way])
        if against == "map-one's = 1":
            want /= figures[what](by["map-one", 1, way])
        elif against:
            other = figures[what](by[target["workload"], target["threads"], against.split(" = ")[0]])
            want = want / other if other else 0
        assert abs(figure - want) <= 1e-4 * want, (target, want)
    reached = figure >= target["at_least"] if "at_least" in target else figure <= target["at_most"]
    assert reached == (target["verdict"] == "met"), target
assert ("write-fault", 1, "bare-protect") in by and ("write-sync", 1, "pwrite") in by, by.keys()
for judgement in (("rand-cold", "speed", "kernel-mmap = 1"), ("rand-nowait", "speed", "limit = 1"),
                  ("fault-cost-4k", "time per operation", "bare = 1"),
                  ("contended", "reads per cached page", None),
                  ("metadata", "metadata as a part of the budget", None)):
    assert judgement in judged, (judgement, judged)
END
fi
expect_clean "$bench" "a whole run"
sha256sum file | cmp -s - sum || fail "the user's file has been written to"

# ---- without --file: a table, no progress in a pipe, pictures, a page
"$filemap" bench --quick --rounds 2 --size 16M --ways filemap,kernel-mmap,limit --plot out.d/pictures \
	--markdown out.d/page.md seq-cold hot rand-cold >out 2>err </dev/null && fail "--plot made a folder in a missing folder"
mkdir out.d
"$filemap" bench --quick --rounds 2 --size 16M --ways filemap,kernel-mmap,limit --plot out.d/pictures \
	--markdown out.d/page.md seq-cold hot rand-cold >out 2>err </dev/null &
bench=$!
wait "$bench" || fail "status $?: $(cat err)"
grep -q '^no --file is given: writing a file of 16 MiB' out || fail "the size of the new file is not printed: $(cat out)"
grep -qE '^seq-cold +filemap +1 ' out || fail "no row: $(cat out)"
grep -qE '^hot +kernel-mmap +1 .* 1\.00$' out || fail "no row of the kernel: $(cat out)"
grep -qE '^rand-cold +1 filemap: speed, kernel-mmap = 1 +>= 20 .*(met|missed)$' out || fail "no target: $(cat out)"
! grep -qE '^(backward|strided) ' out || fail "a target without a measurement: $(cat out)"
! tr -d '\n' <err | grep -q "$(printf '\r')" || fail "progress in a pipe"
expect_clean "$bench" "a file of its own"
bench=
for picture in seq-cold hot rand-cold overview targets; do
	grep -q '</svg>' "out.d/pictures/$picture.svg" || fail "no picture of $picture: $(cat err)"
	if command -v python3 >/dev/null; then
		python3 -c 'import sys, xml.dom.minidom as dom; dom.parse(sys.argv[1])' "out.d/pictures/$picture.svg" ||
			fail "$picture.svg is no XML"
	fi
done
grep -qF '![seq-cold](pictures/seq-cold.svg)' out.d/page.md || fail "no picture in the page: $(cat out.d/page.md)"
grep -qE '^\| rand-cold \| 1 \| filemap: speed, kernel-mmap = 1 \| >= 20 \| .*\| (met|\*\*missed\*\*) \|$' out.d/page.md ||
	fail "no target in the page: $(cat out.d/page.md)"
grep -qE '^\| strided .*\| not measured \|$' out.d/page.md || fail "not all targets in the page: $(cat out.d/page.md)"

# ---- without root, a way that needs root is left out, and the run tells why
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null &&
	setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$filemap" 2>/dev/null; then
	chmod 755 "$dir"
	setpriv --reuid=65534 --regid=65534 --clear-groups "$filemap" bench --file file --quick --rounds 1 \
		--ways kernel-mmap,kernel-mmap-128k seq-cold loop-over-budget >out 2>err </dev/null ||
		fail "not root: status $?: $(cat err)"
	grep -q 'left out: kernel-mmap-128k: .*root' err || fail "no reason for kernel-mmap-128k: $(cat err)"
	grep -q 'left out: kernel-mmap: .*root' err || fail "no reason for loop-over-budget: $(cat err)"
	! grep -qE 'kernel-mmap-128k|^loop-over-budget' out || fail "a row of a way that was left out: $(cat out)"
fi

# ---- bytes that change between two rounds are found
"$filemap" bench --file file --quick --rounds 40 --ways pread seq-cold >out 2>err </dev/null &
bench=$!
sleep 0.3
i=0
while kill -0 "$bench" 2>/dev/null && [ "$i" -lt 200 ]; do
	i=$((i + 1))
	head -c 4096 /dev/urandom | dd of=file bs=4096 seek=$((i % 8192)) conv=notrunc 2>/dev/null
	sleep 0.02
done
status=0
wait "$bench" || status=$?
bench=
[ "$status" -eq 1 ] || fail "changed bytes: status $status: $(cat out err)"
grep -q 'pread read different bytes' err || fail "changed bytes: $(cat err)"

[ "$sanitizer" = none ] || exit 0 # the rest tests processes, and what they set up

# ---- interrupted
for signal in INT TERM KILL; do
	"$filemap" bench --size 64M --quick --rounds 99 >out 2>err </dev/null &
	bench=$!
	sleep 1
	kill -"$signal" "$bench" 2>/dev/null || fail "SIG$signal: the run has already ended: $(cat out err)"
	status=0
	wait "$bench" || status=$?
	[ "$status" -gt 128 ] || fail "SIG$signal: status $status"
	expect_clean "$bench" "SIG$signal"
	bench=
done
