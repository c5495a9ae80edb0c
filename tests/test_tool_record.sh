#!/bin/sh
# SPDX-License-Identifier: MIT
# filemap record: the list and the messages, the program's exit status and signal, several files and
# no file. The command leaves no temporary file behind.
set -u

filemap=${FILEMAP:?the filemap command to test}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
mkdir tmp
TMPDIR=$dir/tmp
export TMPDIR

fail() {
	echo "$*" >&2
	for f in out err hot; do
		[ -f $f ] && sed "s/^/    $f: /" $f >&2
	done
	exit 1
}

# record STATUS ARGUMENTS...: run, and check the status and that TMPDIR is empty.
record() {
	want=$1
	shift
	"$filemap" record "$@" >out 2>err </dev/null
	status=$?
	[ $status -eq "$want" ] || fail "record $*: status $status, not $want"
	[ -z "$(ls -A tmp)" ] || fail "record $*: left something behind: $(ls -A tmp)"
}

head -c 300000 /dev/zero >a
head -c 100000 /dev/zero >b
"$filemap" verify a >out 2>err
[ $? -eq 77 ] && { echo "skipped: $(cat err)"; exit 77; }

# ---- one file: the list has every page in order, and the program's own output is not changed
record 0 --out hot -- "$filemap" verify a
grep -q 'equal$' out || fail "the program's output is missing"
grep -q 'equal$' err && fail "the program's output went elsewhere"
grep -q "file:$dir/a: 1 range, " err || fail "the recorded ranges are not printed"
grep -q 'hot: 1 file; .*hotset=hot' err || fail "the name of the list is not printed"
printf '%s\n' 'filemap-hotset 1' "uri file:$dir/a" 'size 300000' 'page 4096' 'ranges 1' 'lost 0' '0 303104' >want
grep -v '^version' hot | diff want - >&2 || fail "not the expected list"

# ---- a file opens with the list
"$filemap" verify --order random --json 'file:a?hotset=hot' >out 2>err || fail "hotset=hot: cannot be opened"

# ---- several files: one list with a section for each open, and each file finds its own section
record 0 --out hot -- sh -c '"$0" verify a && "$0" verify --order reverse b && "$0" verify a' "$filemap"
[ "$(grep -c '^filemap-hotset 1$' hot)" -eq 3 ] || fail "not three sections"
[ "$(sed -n 's/^uri .*\///p' hot | tr '\n' ' ')" = 'a b a ' ] || fail "not in the order of opening"
grep -q 'hot: 3 files' err || fail "the number of files is not printed"
"$filemap" verify 'file:b?hotset=hot' >out 2>err || fail "hotset=hot: cannot be opened"
[ ! -s err ] || fail "the file's own section was not found"
FILEMAP_HOTSET=hot "$filemap" verify b >out 2>err || fail "FILEMAP_HOTSET: cannot be opened"

# ---- no file: one message, and the old list stays
cp hot before
record 0 --out hot -- true
[ "$(wc -l <err)" -eq 1 ] || fail "not one line"
grep -q 'opened no file' err || fail "no line says that the program opened no file"
cmp -s hot before || fail "the list has changed"

# ---- the command ends as the program ended
record 7 --out hot -- sh -c 'exit 7'
record 143 --out hot -- sh -c 'kill -TERM $$'
record 137 --out hot -- sh -c '"$0" verify a; kill -KILL $$' "$filemap"
grep -q 'ranges 1' hot || fail "the program was killed, and its recorded ranges are lost"

# ---- a signal to the command ends the program
"$filemap" record --out hot -- sh -c 'trap "exit 9" TERM; echo on >ready; while :; do sleep 0.1; done' >out 2>err &
pid=$!
tries=0
while [ ! -f ready ]; do
	tries=$((tries + 1))
	[ $tries -lt 200 ] || fail "the program never began"
	sleep 0.1
done
kill -TERM $pid
wait $pid
status=$?
[ $status -eq 9 ] || fail "terminated: status $status, not the program's 9"

# ---- JSON on the last line
record 0 --json --out hot -- "$filemap" verify a
[ ! -s err ] || fail "--json: text on stderr"
tail -n 1 out | grep -q "^{\"out\":\"hot\",\"exit_status\":0,\"files\":\[{\"uri\":\"file:$dir/a\",\"pid\":[0-9]*,\"ranges\":1,\"bytes\":303104,\"lost\":0}\]}$" ||
	fail "--json: not the expected object"
record 3 --json --out hot -- sh -c 'exit 3'
grep -q '"exit_status":3,"files":\[\]' out || fail "--json: not an empty list"

# ---- the default path of the list
record 0 -- "$filemap" verify b
[ -f filemap.hotset ] || fail "not written to filemap.hotset"
