#!/bin/sh
# SPDX-License-Identifier: MIT
# filemap run: test_run.sh SCENARIO. Runs run_program as it is and under `filemap run`; or programs of the
# system; or looks at what the tool says. $FILEMAP: the tool. $RUN_PROGRAM: the program of tests/run_program.c.
# $RUN_SHIM: the shim. Status 77 is a skip.
set -eu

dir=$(mktemp -d "${TMPDIR:-/var/tmp}/filemap-run-XXXXXX")
trap 'rm -rf "$dir"' EXIT

fail() {
	echo "test_run.sh $scenario: $*" >&2
	exit 1
}

skip() {
	echo "skipped: $*"
	exit 77
}

# A cold file of $2 MiB.
cold_file() {
	dd if=/dev/urandom of="$1" bs=1M count="$2" 2>/dev/null
	make_cold "$1"
}

make_cold() {
	sync "$1"
	dd if="$1" of=/dev/null iflag=nocache count=0 2>/dev/null
}

# Skip unless this machine serves at all: the trap is granted, and the file system grants leases.
need_served() {
	"$FILEMAP" run --require -- true 2>"$dir/why" || skip "$(cat "$dir/why")"
	"$FILEMAP" run --all --min-size 1K --stats "$dir/stats" -- "$RUN_PROGRAM" exit "$dir/probe" || true
	grep -q '"served":2' "$dir/stats" || skip "$dir: not served: $(cat "$dir/stats")"
	rm -f "$dir/stats"
}

# expect_status STATUS COMMAND...: standard error goes to $dir/err.
expect_status() {
	want=$1
	shift
	got=0
	"$@" >"$dir/out" 2>"$dir/err" || got=$?
	[ "$got" = "$want" ] || fail "$*: status $got, not $want: $(cat "$dir/err")"
}

run_scenario() {
	want=0
	[ "$scenario" != exit ] || want=7
	"$RUN_PROGRAM" "$scenario" "$dir/file" || [ $? = $want ] || fail "fails without filemap run"
	need_served
	rounds=2
	case $scenario in
	few | many) ;; # some are the kernel's
	exit) rounds=20; export FM_RUN_SERVED=1 ;;
	*) export FM_RUN_SERVED=1 ;;
	esac
	for budget in 1M 64M; do
		for round in $(seq $rounds); do
			expect_status $want "$FILEMAP" run --all --min-size 1K --budget $budget \
				--stats "$dir/stats" -- "$RUN_PROGRAM" "$scenario" "$dir/file"
		done
	done
	grep -q '"served":[1-9]' "$dir/stats" || fail "nothing was served: $(cat "$dir/stats")"
}

# The calls that the shim stands in for are not called by the shim itself, nor by the library in it.
run_symbols() {
	nm -D --defined-only "$RUN_SHIM" | awk '{ print $NF }' | sort -u >"$dir/shown"
	{
		nm -D --undefined-only "$RUN_SHIM" | awk '{ sub(/@.*/, "", $NF); print $NF }'
		readelf -rW "$RUN_SHIM" | awk '{ sub(/@.*/, "", $5); print $5 }'
	} | sort -u >"$dir/called"
	both=$(comm -12 "$dir/shown" "$dir/called")
	[ -z "$both" ] || fail "the shim calls what it stands in for: $both"
	for name in mmap mmap64 munmap mremap mprotect madvise; do
		grep -qx "$name" "$dir/shown" || fail "the shim does not show $name"
		! grep -qx "$name" "$dir/called" || fail "the shim calls $name of whoever has it"
	done
	! grep -q '^fm_' "$dir/shown" || fail "the shim shows the library's calls"
}

# What the tool says of programs, and its statuses.
run_tells() {
	expect_status 0 "$FILEMAP" run -- true
	[ ! -s "$dir/err" ] || fail "says: $(cat "$dir/err")"
	expect_status 3 "$FILEMAP" run -- sh -c 'exit 3'
	expect_status 127 "$FILEMAP" run -- "$dir/nothing"
	grep -q 'nothing: cannot be run: No such file' "$dir/err" || fail "says: $(cat "$dir/err")"
	: >"$dir/plain"
	expect_status 126 "$FILEMAP" run -- "$dir/plain"
	expect_status 2 "$FILEMAP" run
	expect_status 2 "$FILEMAP" run --trap sometimes -- true
	expect_status 2 "$FILEMAP" run --budget little -- true
	printf 'int main(void) { return 5; }\n' >"$dir/static.c"
	if ${CC:-cc} -static -o "$dir/static" "$dir/static.c" 2>/dev/null; then
		expect_status 5 "$FILEMAP" run -- "$dir/static"
		grep -q 'static is linked statically: it cannot be preloaded' "$dir/err" ||
			fail "says: $(cat "$dir/err")"
		expect_status 2 "$FILEMAP" run --require -- "$dir/static"
		printf '#!%s\n' "$dir/static" >"$dir/script"
		chmod +x "$dir/script"
		expect_status 5 "$FILEMAP" run -- "$dir/script"
		grep -q 'is linked statically' "$dir/err" || fail "says of a script: $(cat "$dir/err")"
	fi
	printf '#!/usr/bin/env -S LANG=C sh\nexit 4\n' >"$dir/script2"
	chmod +x "$dir/script2"
	expect_status 4 "$FILEMAP" run -- "$dir/script2"
	[ ! -s "$dir/err" ] || fail "says of a script: $(cat "$dir/err")"
	cp /bin/true "$dir/set"
	if [ "$(id -u)" = 0 ]; then
		chown 1:1 "$dir/set"
		chmod u+s,a+x "$dir/set"
		expect_status 0 "$FILEMAP" run -- "$dir/set"
		grep -q 'is a set-user-ID program' "$dir/err" || fail "says: $(cat "$dir/err")"
		expect_status 2 "$FILEMAP" run --require -- "$dir/set"
	fi
}

# What is served by default, and what is not.
run_default() {
	need_served
	cold_file "$dir/cold" 20
	command -v python3 >/dev/null || skip "no python3"
	cat >"$dir/map.py" <<-'END'
		import mmap, sys
		file = open(sys.argv[1], 'rb')
		mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
		plain = file.read()
		sys.exit(mapped[:] != plain or mapped.find(plain[-100:]) != len(plain) - 100)
	END
	expect_status 0 "$FILEMAP" run --stats "$dir/stats" --verbose -- python3 "$dir/map.py" "$dir/cold"
	grep -q '"served":1' "$dir/stats" || fail "cold: $(cat "$dir/stats" "$dir/err")"
	grep -q 'cold: 20971520 bytes at 0x[0-9a-f]*: served' "$dir/err" || fail "says: $(cat "$dir/err")"
	cat "$dir/cold" >/dev/null
	expect_status 0 "$FILEMAP" run --verbose -- python3 "$dir/map.py" "$dir/cold"
	grep -q 'the kernel serves: in the page cache' "$dir/err" || fail "warm: $(cat "$dir/err")"
	make_cold "$dir/cold"
	expect_status 0 "$FILEMAP" run --verbose --match '*.db' -- python3 "$dir/map.py" "$dir/cold"
	grep -q 'the kernel serves: not matched' "$dir/err" || fail "--match: $(cat "$dir/err")"
	make_cold "$dir/cold"
	expect_status 0 "$FILEMAP" run --verbose --min-size 64M -- python3 "$dir/map.py" "$dir/cold"
	! grep -q served "$dir/err" || fail "--min-size: $(cat "$dir/err")"
	make_cold "$dir/cold"
	exec 9<>"$dir/cold"
	expect_status 0 "$FILEMAP" run --verbose -- python3 "$dir/map.py" "$dir/cold"
	grep -q 'the kernel serves: somebody has it open for writing' "$dir/err" || fail "$(cat "$dir/err")"
	exec 9>&-
	make_cold "$dir/cold"
	(
		ulimit -v 4000000
		expect_status 0 "$FILEMAP" run --verbose -- python3 "$dir/map.py" "$dir/cold"
		grep -q 'the address space is limited' "$dir/err" || fail "ulimit -v: $(cat "$dir/err")"
	) || exit 1
}

# The same output with and without.
same() {
	"$@" >"$dir/plain_out" 2>&1 || fail "$*: fails without filemap run: $(cat "$dir/plain_out")"
	"$FILEMAP" run --all --min-size 64K --budget 4M --stats "$dir/stats" -- "$@" >"$dir/run_out" 2>&1 ||
		fail "$*: $(cat "$dir/run_out")"
	cmp -s "$dir/plain_out" "$dir/run_out" || fail "$*: the outputs differ"
}

run_programs() {
	need_served
	seq 400000 >"$dir/text"
	if command -v sqlite3 >/dev/null; then
		sqlite3 "$dir/db" "create table t(a integer primary key, b text);
			with recursive c(x) as (select 1 union all select x+1 from c where x < 60000)
			insert into t select x, printf('%064d', x * 7919) from c; create index i on t(b);"
		make_cold "$dir/db"
		same sqlite3 -readonly "$dir/db" "pragma mmap_size=1000000000" "pragma integrity_check" \
			"select count(*), sum(a) from t where b like '%77%'" "select b from t where a % 997 = 3"
		grep -q '"served":[1-9]' "$dir/stats" || fail "sqlite3: nothing served: $(cat "$dir/stats")"
		tried=yes
	fi
	if command -v rg >/dev/null; then
		make_cold "$dir/text"
		same rg --mmap -c 77 "$dir/text"
		tried=yes
	fi
	if command -v git >/dev/null; then
		mkdir "$dir/repo"
		(
			cd "$dir/repo"
			git init -q .
			cp "$dir/text" .
			git add text
			git -c user.name=a -c user.email=a@b.c commit -qm one
			dd if=/dev/urandom of=blob bs=1M count=3 2>/dev/null
			git add blob
			git -c user.name=a -c user.email=a@b.c commit -qm two
			git repack -qad
			same git fsck --full
			same git log --stat --format=%h
			same git cat-file -p HEAD:text
		) || exit 1
		tried=yes
	fi
	[ "${tried-}" ] || skip "none of sqlite3, rg and git is here"
}

scenario=$1
case $scenario in
symbols | tells | default | programs) "run_$scenario" ;;
*) run_scenario ;;
esac
