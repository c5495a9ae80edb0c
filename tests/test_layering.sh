#!/bin/sh
# SPDX-License-Identifier: MIT
# Read the #include lines of src, tools and run, and fail if an arrow points the wrong way:
#   tools -> public header;  run -> public header, os
#   api -> mm -> {trap, io, store, stats} -> os -> nothing
# First the test proves on a made-up tree that it can fail.
set -eu

root=${SOURCE_ROOT:-$(cd "$(dirname "$0")/.." && pwd)}

# check_tree DIR: print a line for each wrong arrow. Status 1 if there was a wrong arrow.
check_tree() {
	(cd "$1" && find include src tools run -name '*.[ch]' 2>/dev/null | LC_ALL=C sort) |
	awk -v root="$1" '
	BEGIN {
		# A module, and the modules or single headers that it may include besides its own.
		may["api"]     = " public mm trap io store stats os "
		may["mm"]      = " public trap io store stats os "
		may["trap"]    = " public os "
		may["io"]      = " public os store/store.h "
		may["store"]   = " public os io/io.h "
		may["stats"]   = " public os "
		may["os"]      = " "
		may["tools"]   = " public "
		may["run"]     = " public os "
		may["public"]  = " "
	}
	function module(path, part) {
		split(path, part, "/")
		if (part[1] == "include")
			return "public"
		return part[1] == "src" ? part[2] : part[1]
	}
	# Return the file that an include line names, or "" for a system header.
	function resolve(from, name, quoted, dir) {
		dir = from
		sub(/[^\/]*$/, "", dir)
		if (quoted && ((dir name) in known))
			return dir name
		if (("src/" name) in known)
			return "src/" name
		if (module(from) == "tools" && ("tools/" name) in known)
			return "tools/" name
		return (("include/" name) in known) ? "include/" name : ""
	}
	function wrong(why) {
		print file ":" line ": " why
		bad = 1
	}
	function judge(name, quoted, target, from, to, header) {
		if (name ~ /\.\./)
			return wrong("\"" name "\" climbs out of its folder")
		target = resolve(file, name, quoted)
		if (target == "") {
			if (quoted)
				wrong("\"" name "\": no such header")
			return
		}
		from = module(file)
		to = module(target)
		header = target
		sub(/^src\//, "", header)
		if (from == to || index(may[from], " " to " ") || index(may[from], " " header " "))
			return
		# filemap stat reads the stats page.
		if (file ~ /^tools\/stat\// && header == "stats/stats.h")
			return
		wrong(from " must not include " header)
	}
	{ known[$0] = 1; files[NR] = $0 }
	END {
		for (i = 1; i <= NR; i++) {
			file = files[i]
			if (!(module(file) in may)) {
				line = 1
				wrong("module " module(file) " has no rule")
				continue
			}
			line = 0
			while ((getline text < (root "/" file)) > 0) {
				line++
				if (text !~ /^[ \t]*#[ \t]*include[ \t]*[<"]/)
					continue
				quoted = text ~ /^[^<]*"/
				sub(/^[^<"]*[<"]/, "", text)
				sub(/[>"].*$/, "", text)
				judge(text, quoted)
			}
			close(root "/" file)
		}
		exit bad
	}'
}

# ---- the self-test
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
for header in include/filemap.h src/mm/mm.h src/mm/page.h src/trap/trap.h src/io/io.h \
	src/io/ring.h src/store/store.h src/store/file.h src/stats/stats.h src/os/os.h \
	tools/command/tool.h; do
	mkdir -p "$tree/${header%/*}"
	: >"$tree/$header"
done
mkdir -p "$tree/src/api" "$tree/run" "$tree/tools/stat"

# arrow VERDICT FILE INCLUDE: FILE with this single line must be found good or bad.
arrow() {
	printf '#include %s\n' "$3" >"$tree/$2"
	if output=$(check_tree "$tree"); then verdict=good; else verdict=bad; fi
	if [ "$verdict" != "$1" ]; then
		echo "self-test: $2 with #include $3 was found $verdict, not $1: $output" >&2
		exit 1
	fi
	: >"$tree/$2"
}
arrow good src/api/a.c '"mm/mm.h"'
arrow good src/mm/a.c '"page.h"'
arrow good src/mm/a.c '"io/io.h"'
arrow good src/mm/a.c '<stdio.h>'
arrow good src/io/a.c '"store/store.h"'
arrow good src/store/a.c '"io/io.h"'
arrow good src/store/a.c '"os/os.h"'
arrow good tools/a.c '"filemap.h"'
arrow good tools/a.c '<filemap.h>'
arrow good tools/a.c '"command/tool.h"'
arrow good tools/stat/verb.c '"command/tool.h"'
arrow good tools/stat/verb.c '"stats/stats.h"'
arrow good run/a.c '"filemap.h"'
arrow bad src/os/a.c '"filemap.h"'
arrow bad src/os/a.c '"mm/mm.h"'
arrow bad src/os/a.c '<mm/mm.h>'
arrow bad src/trap/a.c '"mm/mm.h"'
arrow bad src/trap/a.c '"../mm/mm.h"'
arrow bad src/io/a.c '"store/file.h"'
arrow bad src/store/a.c '"io/ring.h"'
arrow bad src/store/a.c '"mm/mm.h"'
arrow bad src/stats/a.c '"mm/mm.h"'
arrow bad src/mm/a.c '	"tool.h"'
arrow bad src/mm/a.c '"command/tool.h"'
arrow bad tools/a.c '"stats/stats.h"'
arrow bad tools/a.c '"os/os.h"'
arrow bad tools/stat/verb.c '"mm/mm.h"'
arrow bad run/a.c '"mm/mm.h"'
arrow bad include/filemap.h '"os/os.h"'
mkdir "$tree/src/new"
arrow bad src/new/a.c '<stdio.h>'

# ---- the real tree
[ -e "$root/src/os/os.h" ] || { echo "$root: not the source tree" >&2; exit 1; }
check_tree "$root"
