/* SPDX-License-Identifier: MIT */
/*
 * The library is loaded with dlopen(), like a plug-in's dependency: with RTLD_NOW, after threads
 * have started. The library is used and let go with dlclose(), again and again. The library's
 * signal handler stays. Dirty pages are written when the process ends. The test links nothing of
 * the library.
 *
 * Seen to fail: with 64 KiB of thread-locals (dlopen() refuses); without -z nodelete (a SIGBUS
 * after dlclose() runs code that is gone).
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void *library;
static int (*mm_create)(const struct fm_mm_options *, fm_mm **);
static int (*mm_destroy)(fm_mm *);
static int (*file_open)(fm_mm *, const char *, const struct fm_file_options *, fm_file **);
static int (*file_close)(fm_file *);
static int (*file_read)(fm_file *, void *, size_t, uint64_t, size_t *);
static int (*map)(fm_file *, uint64_t, size_t, const struct fm_map_options *, void **);
static int (*fault_in)(fm_mm *, const void *, size_t, unsigned);

static void *symbol(const char *name)
{
	void *found = dlsym(library, name);
	if (!found)
		CHECK_FAIL("%s: %s", name, dlerror());
	return found;
}

static void load(void)
{
	const char *path = getenv("LIBRARY");

	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		CHECK_FAIL("dlopen: %s", dlerror());
	mm_create = symbol("fm_mm_create");
	mm_destroy = symbol("fm_mm_destroy");
	file_open = symbol("fm_file_open");
	file_close = symbol("fm_file_close");
	file_read = symbol("fm_file_read");
	map = symbol("fm_map");
	fault_in = symbol("fm_fault_in");
}

static unsigned char *addr;
static unsigned char want[1 << 20];

static void *read_all(void *arg)
{
	for (size_t i = 0; i < sizeof(want); i += 512)
		CHECK_EQ(((volatile unsigned char *)addr)[i], want[i]);
	return arg;
}

static void use(void)
{
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = 256 << 10,
					.trap = test_trap(), .install = test_install()};
	pthread_t thread[2];
	fm_mm *mm;
	fm_file *file;
	size_t len;
	int err = mm_create(&options, &mm);

	if (err == -ENOSYS || err == -EPERM || err == -EOPNOTSUPP)
		SKIP("fm_mm_create: %s", strerror(-err));
	CHECK_OK(err);
	CHECK_OK(file_open(mm, "memory:1M", NULL, &file));
	CHECK_OK(file_read(file, want, sizeof(want), 0, &len));
	CHECK_EQ(len, sizeof(want));
	CHECK_OK(map(file, 0, sizeof(want), NULL, (void **)&addr));
	if (test_trap() == FM_TRAP_CALL) {
		CHECK_OK(fault_in(mm, addr, 4096, 0));
	} else {
		for (int i = 0; i < 2; i++)
			CHECK_EQ(pthread_create(&thread[i], NULL, read_all, NULL), 0);
		read_all(NULL);
		for (int i = 0; i < 2; i++)
			CHECK_EQ(pthread_join(thread[i], NULL), 0);
	}
	CHECK_OK(file_close(file));
	CHECK_OK(mm_destroy(mm));
}

/* End a program that has let the library go while a page is dirty. */
static int end_dirty(const char *path)
{
	struct fm_mm_options options = {.size = sizeof(options), .budget_bytes = 256 << 10,
					.trap = test_trap(), .install = test_install()};
	struct fm_file_options writes = {.size = sizeof(writes), .flags = FM_FILE_WRITE};
	struct fm_map_options writable = {.size = sizeof(writable), .flags = FM_MAP_WRITE};
	fm_mm *mm;
	fm_file *file;

	load();
	CHECK_OK(mm_create(&options, &mm));
	CHECK_OK(file_open(mm, path, &writes, &file));
	CHECK_OK(map(file, 0, 4096, &writable, (void **)&addr));
	if (test_trap() == FM_TRAP_CALL)
		CHECK_OK(fault_in(mm, addr, 4096, FM_WRITE));
	memcpy(addr, "dirty", 5);
	CHECK_EQ(dlclose(library), 0);
	return 0;
}

static void test_end(void)
{
	char path[] = "/var/tmp/filemap-dlopen-XXXXXX", got[6] = "";
	int status = 0, fd = mkstemp(path);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, 4096), 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		/* The process takes nothing down at such an end, so what a sanitizer calls leaks
		 * is intended. */
		setenv("ASAN_OPTIONS", "detect_leaks=0:handle_segv=0:handle_sigbus=0", 1);
		execl("/proc/self/exe", "test_dlopen", path, NULL);
		_exit(1);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(pread(fd, got, 5, 0), 5);
	close(fd);
	unlink(path);
	CHECK_EQ(status, 0);
	CHECK_STR(got, "dirty");
}

static void *sleeper(void *arg)
{
	pthread_barrier_wait(arg);
	pthread_barrier_wait(arg);
	return NULL;
}

int main(int argc, char **argv)
{
	struct rlimit no_core = {0, 0};
	pthread_barrier_t barrier;
	pthread_t early;
	int status;

	if (!getenv("LIBRARY"))
		SKIP("LIBRARY is not set: the shared library's path");
	if (argc > 1)
		return end_dirty(argv[1]);
	/* This thread starts before dlopen(), which must find room in the thread for the
	 * library's thread-locals. */
	CHECK_EQ(pthread_barrier_init(&barrier, NULL, 2), 0);
	CHECK_EQ(pthread_create(&early, NULL, sleeper, &barrier), 0);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 5; i++) {
		load();
		use();
		CHECK_EQ(dlclose(library), 0);
	}
	pthread_barrier_wait(&barrier);
	CHECK_EQ(pthread_join(early, NULL), 0);
	/* The process still has the library's handler. The handler passes on signals that are not
	 * the library's. */
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		setrlimit(RLIMIT_CORE, &no_core);
		raise(SIGBUS);
		_exit(1);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	test_end();
	return 0;
}
