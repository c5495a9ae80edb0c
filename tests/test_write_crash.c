/* SPDX-License-Identifier: MIT */
/*
 * kill -9 at a random moment. A child appends records of random size to a file through its mapping,
 * and grows the file on the way. A second thread of the child updates whole pages. After fm_sync()
 * the child notes the acknowledged records in memory shared with the parent. The parent kills the
 * child, and then checks the file by plain reads. Each acknowledged record must be whole. Each
 * updated page must hold one version, or the beginning of the next version, and no older version
 * than was acknowledged. No page may hold another page's bytes.
 *
 * A page is updated word by word, in order. Each word holds the page's number and its version. So
 * the store's page must hold some words of one version, and then words of the version before.
 *
 *   test_write_crash [--rounds N] [--seed S] [--keep]    10 rounds by default
 * With --keep the child uses a keeper (FM_KEEP) and never calls fm_sync(). The parent waits until
 * the keeper has ended. The file then holds everything written before the kill.
 *
 * Seen to fail: with an fm_sync() that begins to write and does not wait (acknowledged records are
 * missing).
 */
#include "write_support.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define SPOTS 24u      /* pages that are updated; the records follow them */
#define WORDS (PAGE / 8)
#define MOST (4 * MIB) /* largest size of the file */
#define MAGIC 0x46ab31u

static struct shared {
	atomic_bool ready, full;
	_Atomic uint64_t done, written_to, acked; /* `done` records are in the mapping and end at
						     written_to; `acked` records are durable */
	_Atomic uint32_t begun[SPOTS], finished[SPOTS], spot_acked[SPOTS];
	uint64_t seed;
	char path[256];
	uint32_t trap, install, keep;
	uint64_t budget;
} *shared;

struct record {
	uint32_t magic, len; /* length of the bytes that follow */
	uint64_t number, sum;
};

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t any(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return mix(*state);
}

static uint32_t record_len(uint64_t number)
{
	uint64_t z = mix(shared->seed ^ (number * 0x9e3779b97f4a7c15ull));
	return (uint32_t)(z % 4 ? z % 600 : z % 12000);
}

static uint64_t sum_of(const unsigned char *bytes, size_t len, uint64_t number)
{
	uint64_t sum = number;
	for (size_t i = 0; i < len; i++)
		sum = sum * 0x100000001b3ull + bytes[i] + 1;
	return sum;
}

static size_t record_make(unsigned char *to, uint64_t number)
{
	struct record head = {.magic = MAGIC, .len = record_len(number), .number = number};
	for (uint32_t i = 0; i < head.len; i++)
		to[sizeof(head) + i] = (unsigned char)mix(number * 131072 + i + shared->seed);
	head.sum = sum_of(to + sizeof(head), head.len, number);
	memcpy(to, &head, sizeof(head));
	return sizeof(head) + head.len;
}

/* ------------------------------------------------------------------ the child */

static fm_mm *mm;
static fm_file *file;
static unsigned char *addr;

static void *update_spots(void *arg)
{
	uint64_t random = shared->seed + 5;
	(void)arg;
	for (;;) {
		uint32_t spot = (uint32_t)(any(&random) % SPOTS), version = shared->finished[spot] + 1;
		volatile uint64_t *word = (volatile uint64_t *)(addr + spot * PAGE);
		shared->begun[spot] = version;
		for (unsigned i = 0; i < WORDS; i++)
			word[i] = (uint64_t)(spot + 1) << 32 | version;
		shared->finished[spot] = version;
		if (!shared->keep && any(&random) % 4 == 0) {
			uint32_t first = (uint32_t)(any(&random) % SPOTS), had[SPOTS];
			for (unsigned i = first; i < SPOTS; i++)
				had[i] = shared->finished[i];
			if (fm_sync(mm, addr + first * PAGE, (SPOTS - first) * PAGE, 0))
				_exit(3);
			for (unsigned i = first; i < SPOTS; i++)
				shared->spot_acked[i] = had[i];
		}
		if (any(&random) % 16 == 0)
			fm_advise(mm, addr, SPOTS * PAGE, any(&random) % 2 ? FM_ADVICE_DONTNEED : FM_ADVICE_COLD);
	}
	return NULL;
}

static int child(void)
{
	static unsigned char bytes[16384];
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = shared->budget,
					.trap = shared->trap,
					.install = shared->install,
					.flags = shared->keep ? FM_KEEP : 0};
	struct fm_file_options creating = {.size = sizeof(creating),
					   .flags = FM_FILE_WRITE | FM_FILE_CREATE};
	uint64_t random = shared->seed, at = SPOTS * PAGE, synced = at, size = at + 16 * PAGE;
	pthread_t thread;

	support_no_core();
	int err = fm_mm_create(&options, &mm);
	if (err)
		return err == -EINVAL || err == -EOPNOTSUPP || err == -EPERM || err == -ENOSYS ? 77 : 4;
	err = fm_file_open(mm, shared->path, &creating, &file);
	if (err || fm_truncate(file, size))
		return err == -EOPNOTSUPP ? 77 : 5;
	addr = write_map(file, 0, MOST);
	if (fm_sync(mm, addr, size, 0) || pthread_create(&thread, NULL, update_spots, NULL))
		return 6;
	shared->ready = true;
	for (uint64_t number = 0;; number++) {
		size_t len = record_make(bytes, number);
		if (at + len > MOST)
			break;
		if (at + len > size) {
			size = at + len + 1 + any(&random) % (64 * PAGE);
			size = size < MOST ? size : MOST;
			if (fm_truncate(file, size))
				return 7;
		}
		for (size_t i = 0; i < len; i++)
			((volatile unsigned char *)addr)[at + i] = bytes[i];
		at += len;
		shared->written_to = at;
		shared->done = number + 1;
		if (!shared->keep && any(&random) % 3 == 0) {
			if (fm_sync(mm, addr + synced, at - synced, 0))
				return 8;
			synced = at;
			shared->acked = number + 1;
		}
	}
	shared->full = true;
	for (;;)
		pause();
}

/* ------------------------------------------------------------------ the parent */

static void check_records(const unsigned char *bytes, uint64_t len, uint64_t count)
{
	uint64_t at = SPOTS * PAGE;
	for (uint64_t number = 0; number < count; number++) {
		static unsigned char want[16384];
		size_t need = record_make(want, number);
		if (at + need > len)
			CHECK_FAIL("record %" PRIu64 " of %" PRIu64
				   " is past the file's end, %" PRIu64,
				   number, count, len);
		if (memcmp(bytes + at, want, need) != 0) {
			size_t i = 0;
			while (bytes[at + i] == want[i])
				i++;
			CHECK_FAIL("record %" PRIu64 " of %" PRIu64 ": offset %#" PRIx64
				   " has %02x, not %02x",
				   number, count, at + i, bytes[at + i], want[i]);
		}
		at += need;
	}
}

static void check_spots(const unsigned char *bytes, const _Atomic uint32_t *least)
{
	for (unsigned spot = 0; spot < SPOTS; spot++) {
		uint32_t now = 0;
		bool older = false; /* the words that follow are of the version before */
		for (unsigned i = 0; i < WORDS; i++) {
			uint64_t word;
			memcpy(&word, bytes + spot * PAGE + i * 8, 8);
			uint32_t version = (uint32_t)word, number = (uint32_t)(word >> 32);
			if (word && number != spot + 1)
				CHECK_FAIL("page %u has word %u of page %u", spot, i, number - 1);
			if (i == 0) {
				now = version;
			} else if (version != now) {
				if (older || version + 1 != now)
					CHECK_FAIL("page %u is torn: version %u, and %u in word %u", spot, now, version, i);
				older = true;
				now = version;
			}
			if (version < least[spot])
				CHECK_FAIL("page %u, word %u: version %u, and %u was acknowledged",
					   spot, i, version, least[spot]);
			if (version > shared->begun[spot])
				CHECK_FAIL("page %u: version %u was never written", spot, version);
		}
	}
}

static uint64_t file_read(unsigned char *bytes)
{
	int fd = open(shared->path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	ssize_t n = pread(fd, bytes, MOST, 0);
	CHECK_GE(n, (ssize_t)(SPOTS * PAGE));
	close(fd);
	return (uint64_t)n;
}

/*
 * Tell whether the keeper still has the file open. The keeper has the file open until the keeper
 * ends.
 */
static bool somebody_has_it_open(void)
{
	int fd = open(shared->path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	bool others = fcntl(fd, F_SETLEASE, F_WRLCK) < 0 && (errno == EAGAIN || errno == EBUSY);
	fcntl(fd, F_SETLEASE, F_UNLCK);
	close(fd);
	return others;
}

/* Returns true if the round was skipped. */
static bool one_round(uint64_t *random, uint64_t *records)
{
	static unsigned char bytes[MOST];
	static const uint64_t budgets[] = {64 * KIB, 256 * KIB, MIB, 8 * MIB};
	uint32_t keep = shared->keep;
	int status;

	memset(shared, 0, sizeof(*shared));
	shared->keep = keep;
	shared->seed = any(random);
	shared->trap = any(random) % 3 ? FM_TRAP_INLINE : FM_TRAP_THREAD;
	shared->install = any(random) % 3 ? FM_INSTALL_AUTO : FM_INSTALL_COPY;
	shared->budget = budgets[any(random) % 4];
	snprintf(shared->path, sizeof(shared->path), "%s", support_path());
	fflush(NULL);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		char *argv[] = {(char *)"test_write_crash", (char *)"child", NULL};
		execv("/proc/self/exe", argv);
		_exit(9);
	}
	while (!shared->ready) {
		if (waitpid(pid, &status, WNOHANG) == pid) {
			CHECK(WIFEXITED(status));
			if (WEXITSTATUS(status) == 77)
				return true;
			CHECK_FAIL("the child ended with %d", WEXITSTATUS(status));
		}
		support_sleep_ms(1);
	}
	if (any(random) % 2) /* otherwise the kill may hit the first record */
		EVENTUALLY((keep ? shared->done : shared->acked) > 0 || waitpid(pid, &status, WNOHANG) == pid);
	uint64_t us = any(random) % (any(random) % 4 ? 20000 : 120000);
	struct timespec time = {0, (long)us * 1000};
	nanosleep(&time, NULL);
	CHECK_EQ(waitpid(pid, &status, WNOHANG), 0); /* otherwise the child failed */
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	if (keep)
		EVENTUALLY(!somebody_has_it_open());
	uint64_t count = keep ? shared->done : shared->acked, len = file_read(bytes);
	check_records(bytes, len, count);
	check_spots(bytes, keep ? shared->finished : shared->spot_acked);
	*records += count;
	CHECK_EQ(unlink(shared->path), 0);
	return false;
}

static uint64_t argument(int argc, char **argv, const char *name, uint64_t otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return strtoull(argv[i + 1], NULL, 0);
	return otherwise;
}

int main(int argc, char **argv)
{
	const int shared_fd = 200;
	bool is_child = argc == 2 && strcmp(argv[1], "child") == 0;

	if (!is_child) {
		int fd = memfd_create("shared", 0);
		CHECK(fd >= 0 && dup2(fd, shared_fd) == shared_fd && ftruncate(fd, sizeof(*shared)) == 0);
		close(fd);
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
	CHECK(shared != MAP_FAILED);
	if (is_child)
		_exit(child());
	uint64_t rounds = argument(argc, argv, "--rounds", 10),
		 seed = argument(argc, argv, "--seed", (uint64_t)getpid()), records = 0;
	uint64_t random = seed, skipped = 0;
	printf("seed %" PRIu64 "\n", seed);
	for (int i = 1; i < argc; i++)
		shared->keep |= strcmp(argv[i], "--keep") == 0;
	for (uint64_t round = 0; round < rounds; round++) {
		hazard_watch("a round never ended");
		skipped += one_round(&random, &records);
	}
	if (skipped == rounds)
		SKIP("none of the settings is available here");
	printf("%" PRIu64 " rounds, %" PRIu64 " records acknowledged and found whole\n",
	       rounds - skipped, records);
	CHECK_GT(records, 0);
	return 0;
}
