#!/bin/sh
# SPDX-License-Identifier: MIT
# test_sim_input.sh FILEMAP_SIM: bad input gives one line and status 2. The help and the summaries
# are complete. A pipe gets no progress messages.
set -eu
sim=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*" >&2; cat "$dir/out" "$dir/err" >&2; exit 1; }
bad() { # bad WORD OPTION...: the word must be in the line
	word=$1
	shift
	status=0
	"$sim" "$@" >"$dir/out" 2>"$dir/err" || status=$?
	[ $status -eq 2 ] || fail "status $status of: $*"
	[ ! -s "$dir/out" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] || fail "not one line of: $*"
	grep -qF -e "$word" "$dir/err" || fail "no '$word' for: $*"
}
bad "'x'" --seeds x
bad "'-1'" --seeds -1
bad "'1 '" --seeds '1 '
bad "''" --from ''
bad "--seeds 0" --seeds 0
bad 18446744073709551615 --from 18446744073709551616
bad "'0'" --minutes 0
bad "'nan'" --minutes nan
bad "between 1 and 64" --jobs 65
bad "between 1 and 64" --jobs 0
bad workers=0 --limit workers=0
bad "'worker=1'" --limit ops=2,worker=1
bad "'no-fun'" --limit no-fun
bad "'no-'" --limit no-
bad "'workers='" --limit workers=
bad "--nothing" --nothing
bad "--seeds" --seeds
bad "'more'" --seeds 1 more
bad "'nowhere'" --exhaustive --world nowhere
bad "'nowhere'" --scenario nowhere
bad --exhaustive --world fault-fault
bad --world --schedule 1=1
bad "'1=1,'" --world fault-fault --schedule 1=1,
bad "'2=1,1=1'" --world fault-fault --schedule 2=1,1=1
bad "'1=999'" --world fault-fault --schedule 1=999
bad --preemptions --preemptions 1
bad --preemptions --exhaustive --preemptions 10
bad --from --exhaustive --from 1
bad --limit --exhaustive --limit ops=1
bad --hold --hold --seeds 1
bad --trace --exhaustive --trace
bad --schedule --exhaustive --world fault-fault --schedule 1=1

"$sim" --help >"$dir/out" 2>"$dir/err" || fail "no help"
for option in seeds from minutes jobs limit shrink exhaustive preemptions world schedule scenario hold list trace hash json \
	plant help; do
	grep -q -e "^  --$option " "$dir/out" || fail "--$option is not in the help"
done
"$sim" --seeds 30 --jobs 3 >"$dir/out" 2>"$dir/err" || fail "30 seeds"
[ ! -s "$dir/err" ] || fail "progress in a pipe"
grep -q '^from seed [0-9][0-9]*$' "$dir/out" || fail "the seed is not printed"
grep -q '^30 runs from seed ' "$dir/out" || fail "no summary"
"$sim" --seeds 30 --jobs 3 --json >"$dir/out" 2>"$dir/err"
if command -v python3 >/dev/null; then
	"$sim" --exhaustive --preemptions 0 --json --jobs 2 >>"$dir/out"
	python3 - "$dir/out" <<-'END' || fail "no JSON"
		import json, sys
		text = open(sys.argv[1]).read()
		seeds, end = json.JSONDecoder().raw_decode(text)
		worlds = json.loads(text[end:])
		assert seeds["runs"] == 30 and seeds["failures"] == 0 and seeds["marks"]["access_ok"] > 0
		assert all(w["complete"] and w["schedules"] == 1 or w["schedules"] > 0 for w in worlds["worlds"])
		assert len(worlds["worlds"]) > 10
	END
fi
"$sim" --minutes 0.01 >"$dir/out" 2>"$dir/err" || fail "--minutes"
grep -q '^[1-9][0-9]* runs from seed ' "$dir/out" || fail "no run in 0.01 minutes"
