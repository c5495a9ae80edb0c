/* SPDX-License-Identifier: MIT */
/*
 * The default budget of an address space, for a program that sets none. The budget is a part of
 * the memory of the machine or of the process's cgroup.
 */
#include "mm/space/default_budget.h"


#include <limits.h>
#include <stdio.h>
#include <string.h>

#define BUDGET_DEFAULT_MIN (16ull << 20)
#define BUDGET_DEFAULT_MAX (1ull << 30)

static uint64_t read_limit(const char *path)
{
	unsigned long long value = 0;
	FILE *f = fopen(path, "re");
	if (!f)
		return UINT64_MAX;
	if (fscanf(f, "%llu", &value) != 1 || !value)
		value = ULLONG_MAX;
	fclose(f);
	return value;
}

/* Return the least limit of a group and of the groups that contain the group. Shortens `group`. */
static uint64_t least_limit(const char *root, char *group, const char *name)
{
	uint64_t limit = UINT64_MAX;
	char path[PATH_MAX + 64];

	for (;;) {
		snprintf(path, sizeof(path), "%s%s/%s", root, strcmp(group, "/") ? group : "", name);
		uint64_t here = read_limit(path);
		limit = here < limit ? here : limit;
		char *last = strrchr(group, '/');
		if (!last)
			return limit;
		*last = 0;
	}
}

/* Return the memory limit of this process's cgroup, from the file of version 2 or version 1. */
static uint64_t cgroup_limit(void)
{
	char line[PATH_MAX];
	uint64_t limit = UINT64_MAX;
	FILE *f = fopen("/proc/self/cgroup", "re");
	if (!f)
		return limit;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		char *controllers = strchr(line, ':'), *group = NULL;
		if (controllers)
			group = strchr(++controllers, ':');
		if (!group)
			continue;
		*group++ = 0;
		uint64_t here = UINT64_MAX;
		if (!*controllers)
			here = least_limit("/sys/fs/cgroup", group, "memory.max");
		else if (strstr(controllers, "memory"))
			here = least_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
		limit = here < limit ? here : limit;
	}
	fclose(f);
	return limit;
}

uint64_t default_budget(void)
{
	unsigned long long total_kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");
	if (f) {
		if (fscanf(f, "MemTotal: %llu", &total_kib) != 1)
			total_kib = 0;
		fclose(f);
	}
	uint64_t budget = total_kib * 1024 / 8, limit = cgroup_limit();
	if (limit / 4 < budget)
		budget = limit / 4;
	if (budget < BUDGET_DEFAULT_MIN)
		budget = BUDGET_DEFAULT_MIN;
	return budget < BUDGET_DEFAULT_MAX ? budget : BUDGET_DEFAULT_MAX;
}
