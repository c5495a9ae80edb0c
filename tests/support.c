/* SPDX-License-Identifier: MIT */
/*
 * See support.h. The process has one folder of test files, which is removed at exit. The SIGBUS
 * and SIGSEGV handlers of support_catch() are installed before the library's handlers, as a
 * program's own handlers would be.
 */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------ time */

uint64_t support_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

unsigned support_slower(void)
{
	const char *text = getenv("FM_TEST_SLOWER");
	unsigned times = text ? (unsigned)atoi(text) : 1;
	return times ? times : 1;
}

void support_sleep_ms(unsigned ms)
{
	struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
	while (nanosleep(&time, &time) < 0 && errno == EINTR)
		;
}

/* ------------------------------------------------------------------ the leak check */

static unsigned count_entries(const char *path)
{
	unsigned count = 0;
	DIR *dir = opendir(path);

	CHECK(dir);
	for (const struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

unsigned support_fds(void)
{
	return count_entries("/proc/self/fd") - 1; /* without the descriptor of opendir() */
}

/* Tell whether the kernel made the thread for an io_uring. Such threads stay among the process's
 * tasks for some seconds after the ring has gone. */
static bool is_kernels(const char *tid)
{
	char path[300], name[32] = "";
	snprintf(path, sizeof(path), "/proc/self/task/%s/comm", tid);
	FILE *comm = fopen(path, "re");
	if (!comm)
		return false;
	bool kernels = fgets(name, sizeof(name), comm) && strncmp(name, "iou-", 4) == 0;
	fclose(comm);
	return kernels;
}

unsigned support_threads(void)
{
	unsigned count = 0;
	DIR *dir = opendir("/proc/self/task");

	CHECK(dir);
	for (const struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.' && !is_kernels(entry->d_name);
	closedir(dir);
	return count;
}

static const char *entry_name(const char *line, uint64_t *ret_size)
{
	unsigned long long start, end;
	int at = 0;

	if (sscanf(line, "%llx-%llx %*s %*s %*s %*s %n", &start, &end, &at) < 2 || !at)
		return NULL;
	*ret_size = end - start;
	return line + at;
}

uint64_t support_regions(void)
{
	char line[1024];
	uint64_t size = 0, sum = 0;
	bool anonymous = false;
	FILE *maps = fopen("/proc/self/smaps", "re");

	CHECK(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (strncmp(line, "VmFlags:", 8) == 0) {
			if (anonymous && (strstr(line, " dc") || strstr(line, " wf")))
				sum += size;
			continue;
		}
		const char *name = entry_name(line, &size);
		if (name)
			anonymous = *name == '\n' || *name == 0;
	}
	fclose(maps);
	return sum;
}

/* Return the size of the address space, without the heap and without stacks. The C library keeps
 * thread stacks for later. A thread stack is a guard page and the mapping that follows. */
static uint64_t address_space(void)
{
	char line[1024];
	uint64_t sum = 0, size = 0;
	bool guard = false;
	FILE *maps = fopen("/proc/self/maps", "re");

	CHECK(maps);
	while (fgets(line, sizeof(line), maps)) {
		const char *name = entry_name(line, &size);
		if (!name)
			continue;
		bool is_guard = strstr(line, " ---p ") && size == PAGE && (*name == '\n' || !*name);
		if (!guard && !is_guard && strncmp(name, "[heap]", 6) && strncmp(name, "[stack]", 7))
			sum += size;
		guard = is_guard;
	}
	fclose(maps);
	return sum;
}

struct usage {
	unsigned fds, threads;
	uint64_t regions, heap, space;
};

static struct usage usage_now(void)
{
	struct usage now = {
		.fds = support_fds(),
		.threads = support_threads(),
		.regions = support_regions(),
	};
	if (!SUPPORT_SANITIZED) {
		now.heap = mallinfo2().uordblks;
		now.space = address_space();
	}
	return now;
}

static struct usage before;

static bool is_leader(void)
{
	return getpid() == gettid();
}

static void check_leaks(void)
{
	CHECK(is_leader());
	/* The kernel may list a joined thread for a moment longer. */
	EVENTUALLY(support_threads() <= before.threads);
	struct usage now = usage_now();
	CHECK_EQ(now.fds, before.fds);
	CHECK_LE(now.threads, before.threads); /* fewer if a thread was still exiting then */
	CHECK_EQ(now.regions, before.regions);
}

static void install_handlers(void);
static void remove_folder(void);

void support_start(void)
{
	/* With one arena, everything that threads allocate is counted, and freed, in one place. */
	mallopt(M_ARENA_MAX, 1);
	install_handlers();
	support_path(); /* the folder exists before the count */
	/* What a first mm leaves in the process for good must be there before the count. */
	CHECK_OK(fm_mm_destroy(support_mm(fm_budget_min(PAGE))));
	before = usage_now();
}

void support_end(void)
{
	check_leaks();
}

/* Start the program again without malloc's caches for threads (tcache). The C library counts
 * cached pieces as in use, so the heap could not be compared. The tunable has an effect only at
 * the start of a program. */
static void start_without_tcache(void)
{
	char *argv[] = {program_invocation_name, NULL};

	if (SUPPORT_SANITIZED || getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1);
	remove_folder(); /* execv() runs no exit handler */
	execv("/proc/self/exe", argv);
	CHECK_FAIL("/proc/self/exe: %s", strerror(errno));
}

int support_run(void (*test)(void))
{
	struct usage then, now;

	start_without_tcache();
	support_start();
	test();
	check_leaks();
	/* The C library keeps some memory for later, such as stacks with their thread-locals. So
	 * only memory that grows with every run is a leak. */
	for (int run = 0, grown = 0; run < 4 && grown >= run; run++) {
		then = usage_now();
		test();
		check_leaks();
		now = usage_now();
		grown += now.heap > then.heap || now.space > then.space;
		if (grown == 4)
			CHECK_FAIL("each run leaves more: heap %llu and %llu, address space %llu and %llu",
				   (unsigned long long)then.heap, (unsigned long long)now.heap,
				   (unsigned long long)then.space, (unsigned long long)now.space);
	}
	return 0;
}

/* ------------------------------------------------------------------ an mm */

fm_mm *support_mm(uint64_t budget_bytes)
{
	return test_mm_create(budget_bytes);
}

struct fm_stats support_stats(fm_mm *mm)
{
	struct fm_stats stats = {.size = sizeof(stats)};
	CHECK_OK(fm_stats(mm, &stats));
	return stats;
}

void support_mm_end(fm_mm *mm)
{
	EVENTUALLY(support_stats(mm).files == 0);
	struct fm_stats stats = support_stats(mm);

	CHECK_EQ(stats.mappings, 0);
	CHECK_EQ(stats.views, 0);
	CHECK_EQ(stats.pins, 0);
	CHECK_EQ(stats.requests, 0);
	CHECK_EQ(stats.pages_installed, 0);
	CHECK_EQ(stats.frames_used, 0);
	CHECK_EQ(stats.lock_held_over_block, 0);
	CHECK_LE(stats.charged_bytes, stats.budget_bytes + stats.budget_bytes / 20 + 16 * MIB);
	CHECK_OK(fm_mm_destroy(mm));
}

/* ------------------------------------------------------------------ files */

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t pattern_word(uint64_t at, unsigned seed)
{
	return mix(at * 0x9e3779b97f4a7c15ull + seed * 0xda942042e4dd58b5ull + 1) |
	       0x0101010101010101ull;
}

unsigned char support_byte(uint64_t offset, unsigned seed)
{
	return (unsigned char)(pattern_word(offset / 8, seed) >> offset % 8 * 8);
}

/* The loops below take whole words where they can, because tests go through some hundred MiB. */
static bool whole_word(uint64_t at, size_t left)
{
	return at % 8 == 0 && left >= 8;
}

void support_fill(void *buf, uint64_t offset, size_t len, unsigned seed)
{
	unsigned char *out = buf;
	for (size_t i = 0; i < len;) {
		if (whole_word(offset + i, len - i)) {
			uint64_t word = htole64(pattern_word((offset + i) / 8, seed));
			memcpy(out + i, &word, 8);
			i += 8;
		} else {
			out[i] = support_byte(offset + i, seed);
			i++;
		}
	}
}

uint64_t support_differs(const void *buf, uint64_t offset, size_t len, unsigned seed)
{
	const unsigned char *in = buf;
	for (size_t i = 0; i < len;) {
		if (whole_word(offset + i, len - i)) {
			uint64_t word = htole64(pattern_word((offset + i) / 8, seed)), got;
			memcpy(&got, in + i, 8);
			if (got == word) {
				i += 8;
				continue;
			}
		}
		if (in[i] != support_byte(offset + i, seed))
			return offset + i;
		i++;
	}
	return UINT64_MAX;
}

static char folder[64];
static pid_t folder_owner;

static void remove_folder(void)
{
	if (!folder[0] || getpid() != folder_owner)
		return;
	DIR *dir = opendir(folder);
	for (const struct dirent *entry; dir && (entry = readdir(dir));)
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(folder);
}

/* Make the folder of test files, if possible not on a memory file system. Some memory file
 * systems have no direct reads. */
static void make_folder(void)
{
	static const char *const places[] = {"/var/tmp", "/tmp"};

	for (int i = 0; i < 2; i++) {
		snprintf(folder, sizeof(folder), "%s/filemap-test-XXXXXX", places[i]);
		if (mkdtemp(folder)) {
			folder_owner = getpid();
			atexit(remove_folder);
			return;
		}
	}
	CHECK_FAIL("no folder for test files in /var/tmp or /tmp: %s", strerror(errno));
}

const char *support_format(const char *format, ...)
{
	static __thread char text[4][256];
	static __thread unsigned at;
	char *out = text[at++ % 4];
	va_list args;

	va_start(args, format);
	vsnprintf(out, sizeof(text[0]), format, args);
	va_end(args);
	return out;
}

const char *support_path(void)
{
	static char path[8][96];
	static unsigned number;
	char *out = path[number % 8];

	if (!folder[0])
		make_folder();
	snprintf(out, sizeof(path[0]), "%s/%d-%u", folder, (int)getpid(), number++);
	return out;
}

const char *support_file(uint64_t size, unsigned seed)
{
	static char buf[64 * KIB];
	const char *path = support_path();
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	CHECK(fd >= 0);
	for (uint64_t at = 0; at < size;) {
		size_t len = size - at < sizeof(buf) ? (size_t)(size - at) : sizeof(buf);
		support_fill(buf, at, len, seed);
		CHECK_EQ(write(fd, buf, len), (ssize_t)len);
		at += len;
	}
	close(fd);
	return path;
}

fm_file *support_open(fm_mm *mm, const char *uri, const struct fm_file_options *options)
{
	fm_file *file = NULL;
	int err = fm_file_open(mm, uri, options, &file);

	if (err)
		CHECK_FAIL("fm_file_open(%s): %s", uri, strerror(-err));
	return file;
}

void *support_map(fm_file *file, uint64_t offset, size_t len)
{
	void *addr = NULL;
	CHECK_OK(fm_map(file, offset, len, NULL, &addr));
	CHECK(addr);
	return addr;
}

/* ------------------------------------------------------------------ accesses */

struct copy {
	const unsigned char *from;
	unsigned char *to;
	size_t len;
};

static void copy_body(void *arg)
{
	const struct copy *copy = arg;
	for (size_t i = 0; i < copy->len;) {
		const unsigned char *from = copy->from + i;
		if (whole_word((uintptr_t)from, copy->len - i)) {
			uint64_t word = *(const volatile uint64_t *)from;
			memcpy(copy->to + i, &word, 8);
			i += 8;
		} else {
			copy->to[i++] = *(const volatile unsigned char *)from;
		}
	}
}

/* Read one page at a time: the budget may be smaller than the range. */
static int read_pinned(fm_mm *mm, const unsigned char *addr, unsigned char *buf, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t step = PAGE - ((uintptr_t)(addr + at) & (PAGE - 1));
		step = step < len - at ? step : len - at;
		int err = fm_pin(mm, addr + at, step, 0);
		if (err)
			return err;
		struct copy copy = {addr + at, buf + at, step};
		copy_body(&copy);
		CHECK_OK(fm_unpin(mm, addr + at, step));
		at += step;
	}
	return 0;
}

int support_read(fm_mm *mm, const void *addr, void *buf, size_t len)
{
	struct copy copy = {addr, buf, len};

	if (test_trap() == FM_TRAP_CALL)
		return read_pinned(mm, addr, buf, len);
	return fm_guard(copy_body, &copy, NULL);
}

void support_expect_at(int line, fm_mm *mm, const void *addr, uint64_t offset, size_t len,
		       unsigned seed)
{
	unsigned char *buf = malloc(len);

	CHECK(buf);
	int err = support_read(mm, addr, buf, len);
	if (err)
		CHECK_FAIL("line %d: offset %llu, %zu bytes: %s", line, (unsigned long long)offset,
			   len, strerror(-err));
	uint64_t at = support_differs(buf, offset, len, seed);
	if (at != UINT64_MAX)
		CHECK_FAIL("line %d: offset %llu: %02x, not %02x", line, (unsigned long long)at,
			   buf[at - offset], support_byte(at, seed));
	free(buf);
}

struct frame {
	sigjmp_buf env;
	struct support_signal got;
};
static __thread struct frame *catching;

static void on_signal(int signo, siginfo_t *info, void *ucontext)
{
	struct frame *frame = catching;

	(void)ucontext;
	if (!frame) { /* the test expects no signal: die of the signal */
		signal(signo, SIG_DFL);
		raise(signo);
		return;
	}
	frame->got = (struct support_signal){signo, info->si_code, info->si_errno, info->si_addr};
	siglongjmp(frame->env, 1);
}

static void install_handlers(void)
{
	static bool done;
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	if (done)
		return;
	done = true;
	CHECK_EQ(sigaction(SIGBUS, &action, NULL), 0);
	CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
}

struct support_signal support_catch(void (*body)(void *arg), void *arg)
{
	struct frame frame;
	struct frame *outer = catching;

	memset(&frame.got, 0, sizeof(frame.got));
	if (sigsetjmp(frame.env, 1) == 0) {
		catching = &frame;
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		body(arg);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	}
	catching = outer;
	return frame.got;
}

static void load_body(void *arg)
{
	(void)*(const volatile unsigned char *)arg;
}

static void store_body(void *arg)
{
	*(volatile unsigned char *)arg = 0xff;
}

struct support_signal support_load(const volatile void *addr)
{
	return support_catch(load_body, (void *)(uintptr_t)addr);
}

struct support_signal support_store(volatile void *addr)
{
	return support_catch(store_body, (void *)(uintptr_t)addr);
}

void support_expect_signal_at(int line, struct support_signal got, int signo, int error,
			      const volatile void *addr)
{
	if (got.signo != signo || got.error != error || got.addr != addr)
		CHECK_FAIL("line %d: signal %d, errno %d at %p; not %d, %d at %p", line, got.signo,
			   got.error, got.addr, signo, error, (const void *)(uintptr_t)addr);
}

/* ------------------------------------------------------------------ children */

void support_no_core(void)
{
	struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
}

int support_child(int (*fn)(void *arg), void *arg)
{
	int status = 0;

	fflush(NULL);
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		support_no_core();
		_exit(fn(arg));
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	return status;
}

uint64_t support_faults_settled(fm_mm *mm)
{
	uint64_t last, now = support_stats(mm).faults;
	do {
		last = now;
		support_sleep_ms(30);
		now = support_stats(mm).faults;
	} while (now != last);
	return now;
}
