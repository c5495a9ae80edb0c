#!/bin/sh
# SPDX-License-Identifier: MIT
# Bad input to the filemap command. Each case prints exactly one line on stderr, which names the bad
# thing, and prints nothing on stdout. The status is 2 for wrong usage and 1 for a failure. Good
# input prints nothing on stderr.
set -u

filemap=${FILEMAP:?the filemap command to test}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failed=0
cases=0

complain() {
	echo "filemap $*" >&2
	sed 's/^/    stdout: /' out >&2
	sed 's/^/    stderr: /' err >&2
	failed=$((failed + 1))
}

# bad STATUS WORD ARGUMENTS...: check that the line on stderr contains WORD.
bad() {
	want=$1 word=$2
	shift 2
	cases=$((cases + 1))
	"$filemap" "$@" >out 2>err </dev/null
	status=$?
	if [ $status -ne "$want" ]; then
		complain "$*: status $status, not $want"
	elif [ -s out ]; then
		complain "$*: wrote to stdout"
	elif [ "$(wc -l <err)" -ne 1 ]; then
		complain "$*: not exactly one line on stderr"
	elif ! grep -qE '^filemap( demo)?: ' err; then
		complain "$*: the line does not begin with the command's name"
	elif ! grep -qF -- "$word" err; then
		complain "$*: the line does not name $word"
	fi
}

good() {
	cases=$((cases + 1))
	"$filemap" "$@" >out 2>err </dev/null
	status=$?
	if [ $status -ne 0 ]; then
		complain "$*: status $status, not 0"
	elif [ -s err ] || [ ! -s out ]; then
		complain "$*: wants words on stdout and none on stderr"
	fi
}

printf 'some bytes' >file
: >empty
mkdir directory
mkfifo fifo

# ---- the command
good --help
good --version
good verify --help
good stat --help
good demo --help
good record --help
good bench --help
good stat
bad 2 'no verb'
bad 2 frobnicate frobnicate
bad 2 --frobnicate --frobnicate
bad 2 --frobnicate stat --frobnicate
bad 2 --frobnicate demo --frobnicate

# ---- verify: options
bad 2 URI verify
bad 2 second verify file second
bad 2 --frobnicate verify --frobnicate file
bad 2 -x verify -x file
bad 2 sideways verify --order sideways file
bad 2 --order verify file --order
bad 2 --order verify --order= file
bad 2 magic verify --trap magic file
bad 2 glue verify --install=glue file
bad 2 --json verify --json=yes file
for n in 0 -1 1.5 many 1025 99999999999999999999 ''; do
	bad 2 --threads verify --threads "$n" file
done
for n in 0 -4096 4095 5000 4M 1Q 4KB 4096x ''; do
	bad 2 --page-size verify --page-size "$n" file
done
for n in 0 1 4095 5000 99999999999T ''; do
	bad 2 --stride verify --order strided --stride "$n" file
done
for n in 0 4K 63K lots -1 1.5 99999999999T ''; do
	bad 2 --budget verify --budget "$n" file
done
bad 2 --budget verify --page-size 2M --budget 16M file

# ---- verify --write
bad 2 --size verify --size 1M file
bad 2 --overwrite verify --overwrite file
bad 2 --write verify --write=1 file
bad 2 --size verify --write --size 0 new
bad 2 --size verify --write --size lots new
bad 2 strided verify --write --order strided new
bad 2 --overwrite verify --write file
bad 2 --overwrite verify --write --trap all --size 1M file:file
bad 2 65536 verify --write --page-size 64K new
bad 2 --size verify --write --size 2M memory:1M
bad 1 nowhere/new verify --write nowhere/new
bad 1 directory verify --write directory
bad 1 fifo verify --write fifo
if [ "$(cat file)" != 'some bytes' ]; then
	echo "verify --write: the file that it refused has changed" >&2
	failed=$((failed + 1))
fi
rm -f new
good verify --write --size 64K new
good verify --write --overwrite --json new
good verify --write --budget min memory:64K
rm -f new

# ---- verify: the URI
bad 1 nowhere verify nowhere
bad 1 nowhere verify file:nowhere
bad 1 nowhere verify --trap all file:nowhere
bad 1 directory verify directory
bad 1 directory/ verify file:directory/
bad 1 file/below verify file/below
bad 1 fifo verify fifo
bad 1 /dev/null verify /dev/null
bad 1 'a size of 0' verify /proc/cpuinfo
bad 2 URI verify ''
bad 2 file: verify file:
bad 2 memory: verify memory:
bad 2 memory: verify memory:lots
bad 2 bogus verify 'memory:1M?bogus=1'
bad 2 deadline verify 'memory:1M?deadline=soon'
bad 2 file: verify faulty:
bad 2 delay verify 'faulty:memory:1M?delay=soon'
bad 2 bogus verify 'faulty:memory:1M?bogus=1'
bad 1 nowhere verify 'faulty:nowhere?delay=1ms'
if [ "$(id -u)" -ne 0 ]; then # root may read every file
	printf x >secret
	chmod 0 secret
	bad 1 secret verify secret
fi

# ---- stat
bad 2 nobody stat nobody
bad 2 0 stat 0
bad 2 99999999999 stat 99999999999
bad 2 second stat 1 second
bad 1 999999999 stat 999999999
bad 1 "$$" stat $$
bad 2 --json stat --json=1

# ---- record, and the lists
bad 2 PROGRAM record
bad 2 PROGRAM record --
bad 2 --frobnicate record --frobnicate -- true
bad 2 -c record sh -c true
bad 2 --out record --out= -- true
bad 1 /nowhere/x record --out /nowhere/x -- true
bad 1 directory record --out directory -- true
bad 1 fifo record --out fifo -- true
bad 1 nosuchprogram record -- nosuchprogram
bad 1 ./file record -- ./file
bad 2 record verify 'file:file?record='
bad 1 /nowhere/x verify 'file:file?record=/nowhere/x'
bad 1 directory verify 'file:file?record=directory'
bad 1 directory verify 'file:file?hotset=directory'
bad 2 'line 1' verify 'file:file?hotset=file'
printf 'filemap-hotset 1\n0 9999999999999999999999\n' >wrong
bad 2 'line 2' verify 'file:file?hotset=wrong'
printf 'filemap-hotset 1\nranges 2\n0 4096\n' >wrong
bad 2 'truncated' verify 'file:file?hotset=wrong'
good verify 'file:file?hotset=absent'
for name in 'x%41.db' 'a?b.db' 'q?record=file' 'log:1' '100%' './memory:1M'; do
	cp file "$name"
	good verify "$name"
	good verify "file:$(printf %s "$name" | sed 's/%/%25/g; s/?/%3F/g')"
done
cmp -s file 'q?record=file' || complain 'a plain path had parameters'

# ---- input that must work
good verify empty
good verify file
good verify --threads 4 --order random --budget min --page-size 64K file
good verify --json file
good verify -- file

# ---- output that cannot be written is a failure
cases=$((cases + 1))
if "$filemap" --help >/dev/full 2>err; then
	: >out
	complain "--help >/dev/full: status 0"
fi
# lost COMMAND...: check that the command reports a closed standard output.
lost() {
	cases=$((cases + 1))
	"$filemap" "$@" >&- 2>err </dev/null
	status=$?
	: >out
	if [ $status -ne 1 ] || ! grep -q 'standard output' err; then
		complain "$* >&-: status $status, not 1 and a line about standard output"
	fi
}
lost --help
lost verify file
lost verify --json file
lost stat
lost verify --write --overwrite --size 64K victim
if grep -q 'verify' victim 2>/dev/null; then
	echo "verify --write >&-: its output is in the file that it was given" >&2
	failed=$((failed + 1))
fi
cases=$((cases + 1))
"$filemap" verify file <&- >out 2>&- || complain "verify file <&- 2>&-: failed"

echo "$cases cases, $failed failed"
[ $failed -eq 0 ]
