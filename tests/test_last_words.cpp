// SPDX-License-Identifier: MIT
// A C++ program with the shared library. Bytes that the destructor of a static object writes reach
// the file, although the object is older than the library's first file. The program runs itself
// again with the name of the file. Seen to fail without the library's destructor.
#include "filemap.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const size_t len = 16 * 4096;
static const char words[] = "the last words";

struct speaker {
	char *addr = nullptr;
	~speaker()
	{
		if (addr)
			memcpy(addr, words, sizeof(words));
	}
};
static speaker speaks;

static int run(const char *path)
{
	fm_mm_options options = {};
	fm_file_options writes = {};
	fm_map_options map = {};
	fm_mm *mm;
	fm_file *file;
	void *addr;

	options.size = sizeof(options);
	options.budget_bytes = 1 << 20;
	writes.size = sizeof(writes);
	writes.flags = FM_FILE_WRITE;
	map.size = sizeof(map);
	map.flags = FM_MAP_WRITE;
	if (fm_mm_create(&options, &mm))
		return 77;
	if (fm_file_open(mm, path, &writes, &file) || fm_map(file, 0, len, &map, &addr))
		return 1;
	speaks.addr = static_cast<char *>(addr);
	memcpy(addr, "the first", 9);
	return 0;
}

int main(int argc, char **argv)
{
	char path[] = "/var/tmp/filemap-words-XXXXXX", got[sizeof(words)] = "";
	int status = 0;

	if (argc > 1)
		return run(argv[1]);
	int fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, len) < 0)
		return 1;
	pid_t child = fork();
	if (!child) {
		// Such an end frees nothing: leaks that a sanitizer would report are intended.
		setenv("ASAN_OPTIONS", "detect_leaks=0:handle_segv=0:handle_sigbus=0", 1);
		execl("/proc/self/exe", argv[0], path, static_cast<char *>(nullptr));
		_exit(1);
	}
	waitpid(child, &status, 0);
	bool read = pread(fd, got, sizeof(got), 0) == static_cast<ssize_t>(sizeof(got));
	unlink(path);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		return 77;
	if (status || !read || memcmp(got, words, sizeof(words))) {
		fprintf(stderr, "status 0x%x, and the file begins with: %.14s\n", static_cast<unsigned>(status), got);
		return 1;
	}
	return 0;
}
