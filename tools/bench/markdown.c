/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's results as a page to read: the machine, the targets with their verdicts, and the
 * rows and the picture of each workload. The page has no date, so that two pages differ in their
 * figures only.
 */
#include "bench/bench.h"

#include "command/machine.h"
#include "command/tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FACT_LEN 160

/* ------------------------------------------------------------------ the machine */

/* Return the rest of the first line that begins with `key`, or "unknown" if there is none. */
static const char *find_line(const char *path, const char *key, char text[FACT_LEN])
{
	FILE *in = fopen(path, "re");
	char line[512];

	snprintf(text, FACT_LEN, "unknown");
	while (in && fgets(line, sizeof(line), in)) {
		const char *at = line + strlen(key);

		if (strncmp(line, key, strlen(key)))
			continue;
		snprintf(text, FACT_LEN, "%s", at + strspn(at, " \t:"));
		text[strcspn(text, "\n")] = 0;
		break;
	}
	if (in)
		fclose(in);
	return text;
}

static void put_disk(FILE *out, const struct bench_machine *machine)
{
	unsigned disk_major, disk_minor;
	char path[100], name[FACT_LEN], readahead[FACT_LEN];

	if (machine_find_disk(machine->path, &disk_major, &disk_minor))
		return;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/uevent", disk_major, disk_minor);
	find_line(path, "DEVNAME=", name);
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/read_ahead_kb", disk_major, disk_minor);
	find_line(path, "", readahead);
	fprintf(out, "| disk | %s, readahead %s KiB |\n", name, readahead);
}

static void put_machine(FILE *out, const struct bench_machine *machine, unsigned rounds)
{
	struct utsname kernel;
	char text[FACT_LEN], size[TOOL_TEXT_LEN];
	uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	uname(&kernel);
	fprintf(out, "## The machine\n\n| | |\n| --- | --- |\n| kernel | %s %s, %s |\n",
		kernel.sysname, kernel.release, kernel.machine);
	fprintf(out, "| processor | %s, %ld cores |\n", find_line("/proc/cpuinfo", "model name", text),
		sysconf(_SC_NPROCESSORS_ONLN));
	fprintf(out, "| memory | %.1f GiB, transparent huge pages: %s |\n", (double)bytes / (double)GIB,
		find_line("/sys/kernel/mm/transparent_hugepage/enabled", "", text));
	put_disk(out, machine);
	fprintf(out, "| file | %s of incompressible bytes |\n",
		tool_size_text(machine->file_bytes, size));
	fprintf(out, "| rounds | %u; three times as many for a store in memory |\n\n", rounds);
}

/* ------------------------------------------------------------------ targets */

static void put_targets(FILE *out, const struct bench_row *rows, size_t count)
{
	unsigned number[3] = {0};
	char what[120], need[40];

	for (size_t i = 0; i < bench_target_count; i++)
		number[bench_judge(&bench_targets[i], rows, count).verdict]++;
	fprintf(out, "## Targets\n\n%u of %zu met, %u missed", number[VERDICT_MET], bench_target_count,
		number[VERDICT_MISSED]);
	if (number[VERDICT_NOT_MEASURED])
		fprintf(out, ", %u not measured here", number[VERDICT_NOT_MEASURED]);
	fprintf(out, ". The figure is the median of the rounds, each taken within its round.\n\n"
		     "| workload | threads | what | target | figure | lowest to highest | |\n"
		     "| --- | ---: | --- | ---: | ---: | ---: | --- |\n");
	for (size_t i = 0; i < bench_target_count; i++) {
		const struct bench_target *target = &bench_targets[i];
		struct bench_judgement judged = bench_judge(target, rows, count);

		fprintf(out, "| %s | %u | %s | %s | ", target->workload, target->threads,
			bench_target_text(target, judged.way, what, sizeof(what)),
			bench_need_text(target, need, sizeof(need)));
		if (judged.verdict == VERDICT_NOT_MEASURED)
			fprintf(out, "| | not measured |\n");
		else
			fprintf(out, "%.3g | %.3g to %.3g | %s |\n", judged.figure, judged.low, judged.high,
				judged.verdict == VERDICT_MET ? "met" : "**missed**");
	}
	fputc('\n', out);
}

/* ------------------------------------------------------------------ rows */

static void put_row(FILE *out, const struct bench_row *row)
{
	char time[TOOL_TEXT_LEN];
	double mib = row->mid.bytes / (double)MIB;

	fprintf(out, "| %s | %u | ", bench_ways[row->way].name, row->threads);
	if (row->mid.ns_per_op < 1000)
		fprintf(out, "%.1f ns", row->mid.ns_per_op);
	else
		fprintf(out, "%s", tool_time_text((uint64_t)row->mid.ns_per_op, time));
	fprintf(out, " | %.0f | %.2f | %.2f | %.0f | ", row->mid.seconds > 0 ? mib / row->mid.seconds : 0,
		row->mid.bytes > 0 ? row->mid.device_bytes / row->mid.bytes : 0,
		mib > 0 ? row->mid.cpu_s * 1024 / mib : 0, row->mid.rss_mib);
	if (row->mid.ratio > 0)
		fprintf(out, "%.3g |\n", row->mid.ratio);
	else
		fprintf(out, "|\n");
}

/* The rows from `rows` to `rows + count` belong to one workload. */
static void put_workload(FILE *out, const struct bench_row *rows, size_t count,
			 const char *pictures)
{
	const struct bench_workload *workload = rows->workload;

	fprintf(out, "### %s\n\n%c%s.\n\n", workload->name,
		workload->what[0] - (workload->what[0] >= 'a') * ('a' - 'A'), workload->what + 1);
	if (pictures)
		fprintf(out, "![%s](%s/%s.svg)\n\n", workload->name, pictures, workload->name);
	fprintf(out, "<details><summary>The figures</summary>\n\n"
		     "| way | threads | time per operation | MiB/s | device bytes per byte | CPU s/GiB "
		     "| resident MiB | speed |\n"
		     "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
	for (size_t i = 0; i < count; i++)
		if (!rows[i].left_out)
			put_row(out, &rows[i]);
	fprintf(out, "\n");
	for (size_t i = 0; i < count; i++)
		if (rows[i].left_out)
			fprintf(out, "Left out: %s: %s.\n\n", bench_ways[rows[i].way].name, rows[i].why);
	fprintf(out, "</details>\n\n");
}

static void put_ways(FILE *out)
{
	fprintf(out, "## How it is measured\n\n"
		     "In each round every way runs once, in a new process. The order differs from "
		     "round to round, but neighbouring ways stay close in time. Before a cold "
		     "workload, the file is dropped from the page cache. The table shows the round "
		     "with the median time. The speed is the median of the ratios to `kernel-mmap` in "
		     "the same round. All touched bytes are summed, and the sums are compared. Memory "
		     "is kept in use between the runs: memory that goes back to the host of a virtual "
		     "machine costs the next run some milliseconds for each MiB. Where memory is "
		     "limited, the kernel's ways run in a memory cgroup of the library's budget. "
		     "*Device bytes per byte* is the number of bytes that the process read from the "
		     "device, divided by the bytes it wanted. If no readahead is wasted, 1 minus this "
		     "number is the share of cache hits. Workloads that write use a file of their "
		     "own. The whole file is synced within the measured time, by fm_sync(), "
		     "msync(MS_SYNC) or fdatasync(), and is read back from the device "
		     "afterwards.\n\n"
		     "| way | |\n| --- | --- |\n");
	for (enum bench_way way = 0; way < BENCH_WAY_COUNT; way++)
		fprintf(out, "| %s | %s |\n", bench_ways[way].name, bench_ways[way].what);
	fprintf(out, "\n## Workloads\n\n");
}

/* Return the path of the pictures as seen from the page. */
static const char *link_of(const char *path, const char *plot)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash + 1 - path) : 0;

	return plot && len && !strncmp(path, plot, len) ? plot + len : plot;
}

int bench_markdown(const struct bench_machine *machine, const struct bench_row *rows, size_t count,
		   unsigned rounds, const char *path, const char *plot)
{
	FILE *out = fopen(path, "we");
	const char *pictures = link_of(path, plot);
	size_t from = 0;
	bool failed;

	if (!out)
		goto out_errno;
	fprintf(out, "# Performance\n\n");
	if (pictures)
		fprintf(out, "![overview](%s/overview.svg)\n\n", pictures);
	put_targets(out, rows, count);
	if (pictures)
		fprintf(out, "![targets](%s/targets.svg)\n\n", pictures);
	fprintf(out, "<!-- notes -->\n\n");
	put_machine(out, machine, rounds);
	put_ways(out);
	for (size_t i = 1; i <= count; i++) {
		if (i < count && rows[i].workload == rows[from].workload)
			continue;
		put_workload(out, rows + from, i - from, pictures);
		from = i;
	}
	failed = ferror(out);
	if (!fclose(out) && !failed)
		return 0;
out_errno:
	tool_error(TOOL_FAILED, "bench: --markdown %s: %s", path, strerror(errno));
	return -1;
}
