#!/bin/sh
# SPDX-License-Identifier: MIT
# `filemap verify` finds small, odd, large and sparse files equal. The test goes through orders,
# installs, page sizes, budgets and thread counts, with one trap. Where the store fails, the command
# fails and prints the offset. The arguments are TRAP SANITIZER. All sizes and orders are only
# tested with the inline trap and no sanitizer.
set -u
filemap=${FILEMAP:?the filemap command to test}
trap_name=$1
sanitizer=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
runs=0
fails_size=
failed=0
if [ "$trap_name-$sanitizer" = inline-none ]; then
	sizes='0 1 4095 4096 4097 65535 2097153' orders='sequential reverse random strided' threads='1 64'
else
	sizes='0 4097 2097153' orders='reverse random' threads=4
fi
[ "$sanitizer" != thread ] || orders=random # each run takes a second or more

equal() {
	runs=$((runs + 1))
	"$filemap" verify --trap "$trap_name" "$@" >out 2>err </dev/null
	status=$?
	[ $status -eq 0 ] && grep -q ': equal' out && return 0
	if [ $status -eq 77 ]; then
		echo "skipped: $(cat err)"
		exit 77
	fi
	echo "filemap verify --trap $trap_name $*: status $status" >&2
	cat out err >&2
	failed=$((failed + 1))
	[ $failed -lt 5 ] || exit 1
}

# fails WORD ARGUMENTS...: check for status 1 and for WORD in the output.
fails() {
	word=$1
	shift
	runs=$((runs + 1))
	"$filemap" verify --trap "$trap_name" "$@" >out 2>err </dev/null
	status=$?
	[ $status -eq 1 ] && grep -q -- "$word" out && return 0
	echo "filemap verify --trap $trap_name $*: status $status, wanted 1 and '$word'" >&2
	cat out err >&2
	failed=$((failed + 1))
}

# ---- sizes
for size in $sizes; do
	head -c $size /dev/urandom >"file$size"
	for order in $orders; do
		for page_size in 4K 64K 2M; do
			equal --order $order --page-size $page_size "file$size"
		done
	done
done

# ---- every combination of the options
head -c 3000123 /dev/urandom >file
for order in $orders; do
	for page_size in 4K 64K 2M; do
		for install in move copy; do
			for budget in min 64M; do
				for thread in $threads; do
					equal --order $order --page-size $page_size --install $install \
						--budget $budget --threads $thread --stride 16K file
				done
			done
		done
	done
done

# ---- a budget much smaller than the file, and many threads: the frames are reused again and again
equal --budget min --threads 64 --order random memory:8M
equal --budget 1M --threads 4 memory:16M

# ---- a large file: 96 MiB, which is more than the budgets below, with some data in every 16 MiB,
# and a sparse file of 1 TiB
if [ "$sanitizer" = none ]; then
	truncate -s 96M large
	for at in $(seq 0 16 95); do
		dd if=file of=large bs=1M seek="$at" conv=notrunc status=none
	done
	equal --threads 2 large
	equal --threads 2 --order reverse --page-size 64K --budget 64M large
	equal --threads 2 --page-size 2M --budget min large
fi
truncate -s 1T sparse 2>/dev/null && equal --order strided sparse
equal --order strided --stride 1M --budget min memory:8G

# ---- failures of the store
for order in sequential reverse random; do # anywhere in the page at 5242880
	fails 'mapping at offset 524[2-6][0-9]*, Input/output error' --order $order \
		'faulty:memory:8M?error-at=5242880'
	fails 'mapping at offset 524[2-6][0-9]*, No space left on device' --order $order \
		'faulty:memory:8M?error-at=5242880&error=ENOSPC'
done
fails 'mapping at offset .*, Connection timed out' 'faulty:memory:8M?stuck=1&deadline=100ms'
# Short reads are continued, and slow reads are not an error.
equal 'faulty:memory:1M?short-every=2'
equal --threads 8 'faulty:memory:256K?delay=1ms..3ms'

# ---- files written through the mapping and read back
for size in 1 4095 4097 3000123; do
	for install in auto copy; do
		rm -f new
		equal --write --size "$size" --install "$install" new
		[ "$(stat -c %s new)" -eq "$size" ] || fails_size="$fails_size $size"
	done
done
[ -z "${fails_size-}" ] || { echo "--size: another size:$fails_size" >&2; failed=$((failed + 1)); }
for order in sequential reverse random; do
	equal --write --overwrite --order $order --threads 8 --budget 1M new # the size stays
done
equal --write --budget min memory:1M
equal --write --threads 16 --budget min 'faulty:memory:256K?delay=1ms..2ms'
: >empty
equal --write --size 1M empty
fails 'writing at offset 524[2-6][0-9]*, Input/output error' --write 'faulty:memory:8M?error-at=5242880'
# A verify run only reads: the file stays unchanged.
cp new before
equal new
cmp -s new before || { echo "reading changed the file" >&2; failed=$((failed + 1)); }

echo "$runs runs, $failed failed"
[ $failed -eq 0 ]
