/* SPDX-License-Identifier: MIT */
/*
 * The life of a process around its mappings. A parent starts one program after the other on the
 * same database file. Each program is a generation. Two threads of the program update pages through
 * a mapping and call fm_sync(). Meanwhile a random event happens: closefrom(), fork(), a spawned
 * program, setuid(), dlclose() or the end of the main thread. The program then ends in a random
 * way: exit(), return from main(), quick_exit(), _exit(), exec(), fm_mm_destroy() or kill -9. The
 * next generation starts at once, even while a keeper (FM_KEEP) of the last one still writes.
 *
 * The test checks that no acknowledged byte is lost. The parent checks this with plain reads all
 * the time, and each new generation checks it through its mapping. An ordinary end and a keeper
 * lose nothing at all. No page holds bytes that were never written to the page. All other files in
 * the folder keep their bytes. Nothing hangs.
 *
 * A page is updated word by word, in order. Each word holds the page's number and a version.
 * Versions of a page only grow. So the words of a page never increase from the first to the last,
 * and the last word is the oldest.
 *
 *   test_process_life [--rounds N] [--seconds S] [--seed X] [--event E] [--end E]
 * The default is 40 rounds. With --seconds the test goes on for at least that time.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <spawn.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define PAGE 4096u
#define PAGES 32u
#define WORDS (PAGE / 8)
#define OWNERS 3u /* threads that own pages: two writers, and the thread of the events */
#define VICTIMS 3u
#define HANG_S 60u /* far longer than any step takes, even on a busy machine */

#define EVENTS(X)                                                                                  \
	X(nothing) X(closefrom) X(fork) X(spawn) X(setuid) X(dlclose) X(leader_ends) X(unshare)
#define ENDS(X)                                                                                    \
	X(exit) X(returns) X(quick_exit) X(underscore_exit) X(exec) X(destroy) X(kill) X(killed)
#define ENUM_OF(name) EVENT_##name,
enum event { EVENTS(ENUM_OF) EVENT_COUNT };
#undef ENUM_OF
#define ENUM_OF(name) END_##name,
enum end { ENDS(ENUM_OF) END_COUNT };
#define NAME_OF(name) #name,
static const char *const event_names[] = {EVENTS(NAME_OF)};
static const char *const end_names[] = {ENDS(NAME_OF)};

/* What a generation must do. */
struct plan {
	uint32_t trap, install, flags, event, end;
	uint64_t budget;
	uint32_t before_us, between_us; /* the writers' run before the event, and before the end */
};

static struct shared {
	char db[256], folder[256], library[512];
	struct plan plan, next_plan; /* next_plan is for exec() */
	_Atomic uint32_t generation, ready, skipped;
	_Atomic uint64_t random;
	/* For each page: the versions begun, finished, acknowledged, and due in the next
	 * generation. */
	_Atomic uint64_t begun[PAGES], finished[PAGES], acked[PAGES], floor[PAGES];
} *shared;

static char *program_shared_path, program_shared_path_of_parent[300];

static uint64_t any(void)
{
	uint64_t z = atomic_fetch_add(&shared->random, 0x9e3779b97f4a7c15ull);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void sleep_us(uint32_t us)
{
	struct timespec time = {us / 1000000, (long)(us % 1000000) * 1000};
	nanosleep(&time, NULL);
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const char *plan_text(const struct plan *plan)
{
	static char text[160];
	static const char *const traps[] = {"default", "inline", "thread", "call"};
	static const char *const installs[] = {"auto", "move", "copy"};

	snprintf(text, sizeof(text),
		 "generation %u: trap %s, install %s%s, budget %" PRIu64 " KiB, %s, then %s",
		 (unsigned)shared->generation, traps[plan->trap], installs[plan->install],
		 plan->flags & FM_KEEP ? ", FM_KEEP" : "", plan->budget >> 10,
		 event_names[plan->event], end_names[plan->end]);
	return text;
}

/* ------------------------------------------------------------------ pages */

/* Check a page's words. Returns the version of the last word, which is the oldest. */
static uint64_t page_check(const char *where, unsigned page, const volatile uint64_t *words,
			   uint64_t least)
{
	uint64_t last = UINT64_MAX;

	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t word = words[i], number = word >> 48, version = word & 0xffffffffffffull;
		if (word && number != page + 1)
			CHECK_FAIL("%s; %s: page %u, word %u is %#" PRIx64
				   ": a byte of something else",
				   plan_text(&shared->plan), where, page, i, word);
		if (version > last)
			CHECK_FAIL("%s; %s: page %u, word %u: version %" PRIu64 " after %" PRIu64,
				   plan_text(&shared->plan), where, page, i, version, last);
		if (version < least)
			CHECK_FAIL("%s; %s: page %u, word %u: version %" PRIu64 " and not %" PRIu64 ": a write is lost",
				   plan_text(&shared->plan), where, page, i, version, least);
		if (i == 0 && version > shared->begun[page])
			CHECK_FAIL("%s; %s: page %u: version %" PRIu64 " was never written",
				   plan_text(&shared->plan), where, page, version);
		last = version;
	}
	return last;
}

/* ------------------------------------------------------------------ the program: one generation */

static struct {
	void *handle;
	int (*mm_create)(const struct fm_mm_options *, fm_mm **);
	int (*mm_destroy)(fm_mm *);
	int (*file_open)(fm_mm *, const char *, const struct fm_file_options *, fm_file **);
	int (*map)(fm_file *, uint64_t, size_t, const struct fm_map_options *, void **);
	int (*sync)(fm_mm *, void *, size_t, unsigned);
} lib;

static fm_mm *mm;
static unsigned char *addr;
static atomic_bool writers_stop, ending;
static pthread_t writers[OWNERS - 1];

static void log_line(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	if (level == FM_LOG_ERROR)
		dprintf(STDERR_FILENO, "  the library says: %s\n", line);
}

static void *symbol(const char *name)
{
	void *found = dlsym(lib.handle, name);
	if (!found)
		CHECK_FAIL("%s: %s", name, dlerror());
	return found;
}

static void library_load(void)
{
	lib.handle = dlopen(shared->library, RTLD_NOW | RTLD_LOCAL);
	if (!lib.handle)
		CHECK_FAIL("dlopen: %s", dlerror());
	lib.mm_create = symbol("fm_mm_create");
	lib.mm_destroy = symbol("fm_mm_destroy");
	lib.file_open = symbol("fm_file_open");
	lib.map = symbol("fm_map");
	lib.sync = symbol("fm_sync");
}

static void page_write(unsigned page, uint64_t version)
{
	volatile uint64_t *word = (volatile uint64_t *)(addr + page * PAGE);

	shared->begun[page] = version;
	for (unsigned i = 0; i < WORDS; i++)
		word[i] = (uint64_t)(page + 1) << 48 | version;
	shared->finished[page] = version;
}

static unsigned own_page(unsigned own)
{
	return (unsigned)(any() % (PAGES / OWNERS)) * OWNERS + own;
}

static void page_sync(unsigned page)
{
	uint64_t had = shared->finished[page];
	int err = lib.sync(mm, addr + page * PAGE, PAGE, 0);

	if (!err) {
		shared->acked[page] = had;
	} else if (!ending) {
		dprintf(STDERR_FILENO, "%s: fm_sync: %s\n", plan_text(&shared->plan), strerror(-err));
		_exit(1);
	}
}

/* Update the pages of this writer, and call fm_sync() for some of them. */
static void *writer(void *arg)
{
	unsigned own = (unsigned)(uintptr_t)arg;

	while (!writers_stop) {
		unsigned page = own_page(own);
		page_write(page, shared->begun[page] + 1);
		if (any() % 4 == 0)
			page_sync(page);
		if (any() % 8 == 0)
			sleep_us(200);
	}
	return NULL;
}

/* Returns 77 if this machine lacks what the plan asks for. */
static int program_open(void)
{
	const struct plan *plan = &shared->plan;
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = plan->budget,
					.trap = plan->trap,
					.install = plan->install,
					.flags = plan->flags,
					.log = log_line};
	struct fm_file_options writing = {.size = sizeof(writing), .flags = FM_FILE_WRITE};
	struct fm_map_options writable = {.size = sizeof(writable), .flags = FM_MAP_WRITE};
	void *at = NULL;
	fm_file *file;
	int err = lib.mm_create(&options, &mm);

	if (err == -ENOSYS || err == -EPERM || err == -EOPNOTSUPP)
		return 77;
	CHECK_OK(err);
	CHECK_OK(lib.file_open(mm, shared->db, &writing, &file));
	CHECK_OK(lib.map(file, 0, PAGES * PAGE, &writable, &at));
	addr = at;
	/* Check the last generation's versions. No page is dirty yet: the file holds them all. */
	for (unsigned page = 0; page < PAGES; page++) {
		uint64_t there =
			page_check("through the mapping", page,
				   (volatile uint64_t *)(addr + page * PAGE), shared->floor[page]);
		shared->finished[page] = shared->acked[page] = there;
	}
	return 0;
}

static void event_closefrom(void)
{
	char path[300];

	closefrom(3);
	for (unsigned i = 0; i < 16; i++) { /* a victim may get a number of the library's */
		snprintf(path, sizeof(path), "%s/victim%u", shared->folder, i % VICTIMS);
		if (open(path, O_RDWR | O_CLOEXEC) < 0)
			_exit(1);
	}
}

static void event_fork(void)
{
	pid_t pid = fork();

	if (pid < 0)
		_exit(1);
	if (!pid) { /* the child owns nothing: its exit handlers write nothing */
		if (any() % 2)
			_exit(0);
		exit(0);
	}
	if (any() % 2 && waitpid(pid, NULL, 0) != pid)
		_exit(1);
}

static void event_spawn(void)
{
	char *argv[] = {(char *)"true", NULL};
	char *envp[] = {NULL};
	pid_t pid;

	if (!posix_spawn(&pid, "/bin/true", NULL, NULL, argv, envp))
		waitpid(pid, NULL, 0);
}

static void event_now(enum event event)
{
	switch (event) {
	case EVENT_closefrom:
		event_closefrom();
		break;
	case EVENT_fork:
		event_fork();
		break;
	case EVENT_spawn:
		event_spawn();
		break;
	case EVENT_setuid:
		if (getuid() == 0 && (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
			_exit(1);
		break;
	case EVENT_dlclose:
		dlclose(lib.handle);
		break;
	case EVENT_unshare: /* this thread gets its own, empty descriptor table */
		unshare(CLONE_FILES);
		closefrom(3);
		break;
	default:
		break;
	}
}

/* Set what the next generation must find: each finished version, or each acknowledged version. */
static void set_floor(bool all)
{
	for (unsigned page = 0; page < PAGES; page++)
		shared->floor[page] = all ? shared->finished[page] : shared->acked[page];
}

/* exec(): the same process becomes the next generation. A writer may be in the middle of a page. */
static void exec_again(void)
{
	char *argv[] = {(char *)"test_process_life", (char *)"program", program_shared_path, NULL};

	set_floor(shared->plan.flags & FM_KEEP);
	shared->ready = 0;
	shared->plan = shared->next_plan;
	shared->generation++;
	execv("/proc/thread-self/exe", argv); /* the main thread may have ended */
	_exit(1);
}

static void stop_writers(void)
{
	writers_stop = true;
	for (unsigned i = 0; i < OWNERS - 1; i++)
		pthread_join(writers[i], NULL);
}

/* Ends that write all dirty pages. Does not return, unless the end is `returns`. */
static void end_well(enum end end)
{
	if (end == END_destroy || any() % 2)
		stop_writers();
	set_floor(true);
	shared->ready = 0; /* the floor is set */
	if (end == END_quick_exit)
		quick_exit(0);
	if (end == END_destroy) {
		CHECK_OK(lib.mm_destroy(mm));
		_exit(0);
	}
	if (end != END_returns)
		exit(0);
}

static void *live(void *arg)
{
	const struct plan *plan = &shared->plan;
	unsigned own = OWNERS - 1;

	sleep_us(plan->before_us);
	event_now(plan->event);
	for (int i = 0; i < 3; i++) {
		unsigned page = own_page(own);
		page_write(page, shared->begun[page] + 1);
		page_sync(page);
		sleep_us(plan->between_us / 3);
	}
	page_write(own, shared->begun[own] + 1); /* the page is dirty at the end */
	ending = true;
	switch (plan->end) {
	case END_killed:
		for (;;)
			pause();
	case END_kill:
		kill(getpid(), SIGKILL);
		break;
	case END_underscore_exit:
		_exit(0);
	case END_exec:
		exec_again();
		break;
	default:
		end_well(plan->end == END_returns && arg ? END_exit : plan->end);
	}
	return NULL;
}

static int program(void)
{
	pthread_t actor;

	library_load();
	alarm(HANG_S);
	int status = program_open();
	if (status)
		return status;
	for (unsigned i = 0; i < OWNERS - 1; i++)
		CHECK_EQ(pthread_create(&writers[i], NULL, writer, (void *)(uintptr_t)i), 0);
	shared->ready = 1;
	if (shared->plan.event == EVENT_leader_ends) {
		CHECK_EQ(pthread_create(&actor, NULL, live, (void *)1), 0);
		pthread_exit(NULL);
	}
	live(NULL);
	return 0;
}

/* ------------------------------------------------------------------ the parent */

static void plan_make(struct plan *plan, int event, int end)
{
	static const uint64_t budgets[] = {64, 256, 1024, 8192};

	plan->trap = any() % 3 ? FM_TRAP_INLINE : FM_TRAP_THREAD;
	plan->install = any() % 3 ? FM_INSTALL_AUTO : FM_INSTALL_COPY;
	plan->flags = any() % 2 ? FM_KEEP : 0;
	plan->budget = budgets[any() % 4] << 10;
	plan->event = event >= 0 ? (uint32_t)event : (uint32_t)(any() % EVENT_COUNT);
	plan->end = end >= 0 ? (uint32_t)end : (uint32_t)(any() % END_COUNT);
	plan->before_us = (uint32_t)(any() % 15000);
	plan->between_us = (uint32_t)(any() % 15000);
}

static void read_page(int fd, unsigned page, uint64_t *words)
{
	CHECK_EQ(pread(fd, words, PAGE, (off_t)page * PAGE), PAGE);
}

/* Acknowledged versions are in the file at any time. */
static void check_acked(int fd)
{
	uint64_t words[WORDS];
	unsigned page = (unsigned)(any() % PAGES);
	uint64_t acked = shared->acked[page];

	read_page(fd, page, words);
	page_check("by a plain read", page, words, acked);
}

static void check_floor(int fd)
{
	uint64_t words[WORDS];

	for (unsigned page = 0; page < PAGES; page++) {
		read_page(fd, page, words);
		page_check("by a plain read at the end", page, words, shared->floor[page]);
	}
}

static void victims_make(void)
{
	char path[300];
	char bytes[PAGE];

	memset(bytes, 'V', sizeof(bytes));
	for (unsigned v = 0; v < VICTIMS; v++) {
		snprintf(path, sizeof(path), "%s/victim%u", shared->folder, v);
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		CHECK(fd >= 0 && fchmod(fd, 0666) == 0);
		for (unsigned page = 0; page < PAGES; page++)
			CHECK_EQ(write(fd, bytes, PAGE), PAGE);
		close(fd);
	}
}

/* Check that the other files hold their bytes and that the folder has no new file. */
static void victims_check(void)
{
	char path[300], bytes[PAGE];
	unsigned entries = 0;
	DIR *dir = opendir(shared->folder);

	CHECK(dir);
	for (const struct dirent *entry; (entry = readdir(dir));)
		entries += entry->d_name[0] != '.';
	closedir(dir);
	CHECK_EQ(entries, VICTIMS + 2); /* the victims, the database and the shared file */
	for (unsigned v = 0; v < VICTIMS; v++) {
		snprintf(path, sizeof(path), "%s/victim%u", shared->folder, v);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		CHECK(fd >= 0);
		for (unsigned page = 0; page <= PAGES; page++) {
			ssize_t n = pread(fd, bytes, PAGE, (off_t)page * PAGE);
			CHECK_EQ(n, page < PAGES ? PAGE : 0);
			for (ssize_t i = 0; i < n; i++)
				if (bytes[i] != 'V')
					CHECK_FAIL("%s: victim%u, offset %zd: a foreign byte was written there",
						   plan_text(&shared->plan), v, page * (ssize_t)PAGE + i);
		}
		close(fd);
	}
}

/* Wait for the program's end, or kill the program as planned. Check acknowledged versions
 * meanwhile. */
static int watch(pid_t pid, int fd)
{
	double hangs_at = now_s() + 2 * HANG_S, killed_at = now_s() + (double)(any() % 60) / 1e3;
	int status;

	for (;;) {
		pid_t ended = waitpid(pid, &status, WNOHANG);
		if (ended == pid)
			return status;
		CHECK_EQ(ended, 0);
		check_acked(fd);
		if (shared->plan.end == END_killed && shared->ready && now_s() > killed_at)
			kill(pid, SIGKILL);
		if (now_s() > hangs_at)
			CHECK_FAIL("%s: hangs, process %d", plan_text(&shared->plan), (int)pid);
		sleep_us(300);
	}
}

static pid_t parent, program_pid;

/* Runs at every exit, also after a failed check. */
static void remove_all(void)
{
	char command[400];

	if (getpid() != parent)
		return;
	if (program_pid)
		kill(program_pid, SIGKILL);
	snprintf(command, sizeof(command), "rm -rf '%s'", shared->folder);
	if (system(command))
		fprintf(stderr, "%s: could not be removed\n", shared->folder);
}

static void one_round(int fd, int event, int end)
{
	char *argv[] = {(char *)"test_process_life", (char *)"program", program_shared_path, NULL};

	plan_make(&shared->plan, event, end);
	do /* a program started by exec() ends in another way, not in exec() for ever */
		plan_make(&shared->next_plan, event, end == END_exec ? END_exit : end);
	while (shared->next_plan.end == END_exec);
	shared->generation++;
	shared->ready = 0;
	fflush(NULL);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		execv("/proc/self/exe", argv);
		_exit(1);
	}
	program_pid = pid;
	int status = watch(pid, fd);
	program_pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		shared->skipped++;
		return;
	}
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
		      (shared->plan.end == END_kill || shared->plan.end == END_killed);
	if (!killed && status)
		CHECK_FAIL("%s: ended by %s %d", plan_text(&shared->plan),
			   WIFSIGNALED(status) ? "signal" : "status",
			   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (shared->ready) /* the program ended without setting the floor */
		set_floor(shared->plan.flags & FM_KEEP);
	if (!(shared->plan.flags & FM_KEEP))
		check_floor(fd);
	if (shared->generation % 8 == 0)
		victims_check();
}

static uint64_t argument(int argc, char **argv, const char *name, uint64_t otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return strtoull(argv[i + 1], NULL, 0);
	return otherwise;
}

static int named(int argc, char **argv, const char *option, const char *const *names, int count)
{
	for (int i = 1; i + 1 < argc; i++)
		for (int n = 0; n < count && strcmp(argv[i], option) == 0; n++)
			if (strcmp(argv[i + 1], names[n]) == 0)
				return n;
	return -1;
}

static void shared_map(const char *path, int flags)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);

	CHECK(fd >= 0 && (!flags || (fchmod(fd, 0666) == 0 && ftruncate(fd, sizeof(*shared)) == 0)));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(shared != MAP_FAILED);
	close(fd);
}

int main(int argc, char **argv)
{
	static char folder[] = "/var/tmp/filemap-life-XXXXXX";
	struct rlimit no_core = {0, 0};

	setrlimit(RLIMIT_CORE, &no_core);
	if (argc == 3 && strcmp(argv[1], "program") == 0) {
		program_shared_path = argv[2];
		shared_map(argv[2], 0);
		return program();
	}
	if (!getenv("LIBRARY"))
		SKIP("LIBRARY is not set: the path of the shared library");
	CHECK(mkdtemp(folder) && chmod(folder, 0777) == 0);
	snprintf(program_shared_path_of_parent, sizeof(program_shared_path_of_parent), "%s/shared",
		 folder);
	program_shared_path = program_shared_path_of_parent;
	shared_map(program_shared_path, O_CREAT | O_EXCL);
	snprintf(shared->folder, sizeof(shared->folder), "%s", folder);
	snprintf(shared->db, sizeof(shared->db), "%s/db", folder);
	snprintf(shared->library, sizeof(shared->library), "%s", getenv("LIBRARY"));
	uint64_t rounds = argument(argc, argv, "--rounds", 40),
		 seed = argument(argc, argv, "--seed", (uint64_t)getpid());
	double until = now_s() + (double)argument(argc, argv, "--seconds", 0);
	int event = named(argc, argv, "--event", event_names, EVENT_COUNT),
	    end = named(argc, argv, "--end", end_names, END_COUNT);
	shared->random = seed;
	printf("seed %" PRIu64 "\n", seed);
	parent = getpid();
	atexit(remove_all);
	victims_make();
	int fd = open(shared->db, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && fchmod(fd, 0666) == 0 && ftruncate(fd, PAGES * PAGE) == 0);
	uint64_t round = 0;
	while (round < rounds || now_s() < until) {
		one_round(fd, event, end);
		round++;
	}
	victims_check();
	unsigned skipped = shared->skipped, generations = shared->generation;
	if (skipped == round)
		SKIP("none of the settings is available here");
	printf("%" PRIu64 " rounds, %u generations, nothing lost, nothing foreign written\n",
	       round - skipped, generations);
	return 0;
}
