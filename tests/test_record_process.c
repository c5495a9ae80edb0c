/* SPDX-License-Identifier: MIT */
/*
 * $FILEMAP_RECORD and $FILEMAP_HOTSET in whole processes. A list is written however the program
 * ends. The program may destroy the mm, return, or call exit() in one thread while other threads
 * run. A killed program leaves the list of at most a second before. A forked child writes no list.
 * A path in the environment that cannot be used does not keep a program from its file.
 *
 * Seen to fail: without the exit handler (returns), without the save each second (killed), and with
 * the list of another file accepted ($FILEMAP_HOTSET).
 */
#include "support.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED 29

/* ------------------------------------------------------------------ the program */

static volatile unsigned char *map(fm_mm *mm, const char *uri)
{
	fm_file *file;
	void *addr;
	CHECK_OK(fm_file_open(mm, uri, NULL, &file));
	CHECK_OK(fm_map(file, 0, 256 * PAGE, NULL, &addr));
	return addr;
}

static void *exits(void *arg)
{
	(void)arg;
	exit(0);
}

static void *touches(void *arg)
{
	volatile unsigned char *addr = arg;
	for (unsigned i = 0;; i++)
		(void)addr[i % 64 * PAGE];
	return NULL;
}

static int program(const char *how, const char *uri)
{
	fm_mm *mm = NULL;
	pthread_t thread[3];
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = 16 * MIB};
	int error = fm_mm_create(&options, &mm);
	if (error)
		SKIP("fm_mm_create: %s", strerror(-error));
	volatile unsigned char *addr = map(mm, uri);
	(void)addr[5 * PAGE];
	(void)addr[3 * PAGE];
	if (strcmp(how, "destroys") == 0)
		return -fm_mm_destroy(mm);
	if (strcmp(how, "returns") == 0)
		return 0;
	if (strcmp(how, "forks") ==
	    0) { /* the child's exit handlers write nothing and wait for nothing */
		pid_t pid = fork();
		if (!pid)
			exit(0);
		waitpid(pid, NULL, 0);
		_exit(0);
	}
	if (strcmp(how, "exits beside others") == 0) {
		for (unsigned i = 0; i < 3; i++)
			CHECK_EQ(pthread_create(&thread[i], NULL, i ? touches : exits, (void *)(uintptr_t)addr), 0);
		pause();
	}
	if (strcmp(how, "waits") == 0)
		for (;;)
			pause();
	if (strcmp(how, "reads ahead") == 0) {
		struct fm_stats stats = {.size = sizeof(stats)};
		EVENTUALLY(fm_stats(mm, &stats) == 0 && stats.hotset_pages == 2);
		CHECK_OK(fm_mm_destroy(mm));
		return 0;
	}
	if (strcmp(how, "reads nothing ahead") == 0) {
		CHECK_EQ(support_stats(mm).hotset_pages, 0);
		CHECK_OK(fm_mm_destroy(mm));
		return 0;
	}
	return 3;
}

/* ------------------------------------------------------------------ the parent */

static pid_t start(const char *how, const char *uri)
{
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed check leaves no program behind */
		execl("/proc/self/exe", "program", how, uri, (char *)NULL);
		_exit(127);
	}
	CHECK_GT(pid, 0);
	return pid;
}

static int status_of(pid_t pid)
{
	int status;
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		SKIP("the program cannot run here");
	return status;
}

/* Read the only list in the folder. Returns false if the folder holds no list. */
static bool take_list(const char *folder, char *text, size_t len)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	unsigned found = 0;

	CHECK(dir);
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		found++;
		FILE *f = fopen(support_format("%s/%s", folder, entry->d_name), "r");
		CHECK(f);
		text[fread(text, 1, len - 1, f)] = '\0';
		fclose(f);
	}
	closedir(dir);
	CHECK_LE(found, 1);
	return found == 1;
}

static void empty(const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

static void expect_list(const char *folder, const char *uri, unsigned ranges)
{
	char text[4096];
	if (!take_list(folder, text, sizeof(text)))
		CHECK_FAIL("nothing was written");
	const char *want = support_format("filemap-hotset 1\nuri file:%s\n", uri);
	if (strncmp(text, want, strlen(want)) != 0 || !strstr(text, support_format("ranges %u\n", ranges)))
		CHECK_FAIL("the list is: %s", text);
	if (ranges == 2 && !strstr(text, "\nlost 0\n20480 4096\n12288 4096\n"))
		CHECK_FAIL("the list is: %s", text);
	empty(folder);
}

int main(int argc, char **argv)
{
	if (argc == 3)
		return program(argv[1], argv[2]);
	char folder[] = "/tmp/filemap-test-XXXXXX", text[4096];
	const char *path = support_file(256 * PAGE, SEED), *other = support_file(256 * PAGE, SEED);
	CHECK(mkdtemp(folder));
	CHECK_EQ(setenv("FILEMAP_RECORD", folder, 1), 0);
	/* The programs leave everything behind on purpose. */
	const char *asan = getenv("ASAN_OPTIONS");
	CHECK_EQ(setenv("ASAN_OPTIONS", support_format("%s:detect_leaks=0", asan ? asan : ""), 1), 0);

	CHECK_EQ(status_of(start("destroys", path)), 0);
	expect_list(folder, path, 2);
	CHECK_EQ(status_of(start("returns", path)), 0);
	expect_list(folder, path, 2);
	CHECK_EQ(status_of(start("exits beside others", path)), 0);
	CHECK(take_list(folder, text, sizeof(text)));
	empty(folder);
	CHECK_EQ(status_of(start("forks", path)), 0);
	CHECK(!take_list(folder, text, sizeof(text)) ||
	      SUPPORT_SANITIZED); /* TSan's exit alone takes a second */
	empty(folder);

	pid_t pid = start("waits", path);
	EVENTUALLY(take_list(folder, text, sizeof(text)) && strstr(text, "\nranges 2\n"));
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK(WIFSIGNALED(status_of(pid)));
	expect_list(folder, path, 2);

	/* The folder does not exist: the program runs as usual. */
	CHECK_EQ(setenv("FILEMAP_RECORD", "/nowhere/at/all", 1), 0);
	CHECK_EQ(status_of(start("destroys", path)), 0);
	CHECK_EQ(unsetenv("FILEMAP_RECORD"), 0);

	const char *hot = support_format("%s/hot", folder);
	FILE *f = fopen(hot, "w");
	CHECK(f);
	fprintf(f, "filemap-hotset 1\nuri file:%s\nranges 1\n409600 8192\n", path);
	CHECK_EQ(fclose(f), 0);
	CHECK_EQ(setenv("FILEMAP_HOTSET", hot, 1), 0);
	CHECK_EQ(status_of(start("reads ahead", path)), 0);
	CHECK_EQ(status_of(start("reads nothing ahead", other)), 0);
	CHECK_EQ(setenv("FILEMAP_HOTSET", path, 1), 0); /* the file is not a hot set */
	CHECK_EQ(status_of(start("reads nothing ahead", path)), 0);
	CHECK_EQ(setenv("FILEMAP_HOTSET", "/nowhere/at/all", 1), 0);
	CHECK_EQ(status_of(start("reads nothing ahead", path)), 0);
	empty(folder);
	CHECK_EQ(rmdir(folder), 0);
	return 0;
}
