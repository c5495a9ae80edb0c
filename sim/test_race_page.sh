#!/bin/sh
# SPDX-License-Identifier: MIT
# test_race_page.sh FILEMAP_SIM PAGE [--update]: the page has the traces that the simulator prints
# today. Step numbers, addresses and wake-ups may differ: they change with every change of src/mm.
# With --update the script writes today's traces into the page.
set -eu
sim=$1 page=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
grep '^<!-- --scenario ' "$page" | sed 's/^<!-- \(.*\) -->$/\1/' >"$dir/commands"
[ "$(wc -l <"$dir/commands")" -eq 2 ] || { echo "$page: not two traces" >&2; exit 1; }

n=0
while read -r command; do
	n=$((n + 1))
	"$sim" $command >"$dir/today.$n"
done <"$dir/commands"

if [ "${3:-}" = --update ]; then
	awk -v dir="$dir" '
		/^<!-- --scenario / { print; getline; print; file = dir "/today." ++n
			while ((getline line < file) > 0) print line
			while ((getline line) > 0 && line != "```"); print line; next }
		{ print }' "$page" >"$dir/page"
	cat "$dir/page" >"$page"
	exit
fi

# Print one line for each event, without its step.
story() {
	sed -e 's/^ *[0-9][0-9]* \( *[0-9.]* ms\)/\1/' -e 's/^ *[0-9][0-9]* \( *[0-9]*\.[0-9]*\)/\1/' -e 's/[. ]*$//' |
		awk '/wakes thread/ { next } { gsub(/0x[0-9a-f]+/, "ADDRESS"); gsub(/ +/, " "); print }'
}
for i in 1 2; do
	awk -v want=$i '/^<!-- --scenario / { n++ } /^```$/ { inside = !inside; next } n == want && inside' "$page" |
		story >"$dir/page.$i"
	story <"$dir/today.$i" >"$dir/now.$i"
	[ "$(wc -l <"$dir/now.$i")" -gt 15 ] || { echo "no trace is printed" >&2; exit 1; }
	diff "$dir/page.$i" "$dir/now.$i" || {
		echo "$page: trace $i is no longer what the simulator prints: see whether the words still fit, then" \
			"sim/test_race_page.sh FILEMAP_SIM docs/race.md --update" >&2
		exit 1
	}
done

# The page gives numbers: the monitor waits while the lock is held, and does not wait if the lock
# is dropped.
waits() { # milliseconds from "maps" to the monitor's "taken"
	awk '/maps pages/ { from = $2; seen = 1 } seen && /map lock taken, exclusive 1/ { printf "%d\n", $2 - from; exit }' "$1"
}
[ "$(waits "$dir/today.1")" -ge 50 ] || { echo "the monitor does not wait with the lock held" >&2; exit 1; }
[ "$(waits "$dir/today.2")" -eq 0 ] || { echo "the monitor waits with the lock dropped" >&2; exit 1; }
