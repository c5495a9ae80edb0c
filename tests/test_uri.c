/* SPDX-License-Identifier: MIT */
/* URIs, numbers and parameters: which are accepted, which are refused, and with which words. */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("%s:%d: %s: ", __FILE__, __LINE__, #cond);                          \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static char dir[] = "/tmp/fm-uri-XXXXXX";

static void size_is(const char *text, int error, uint64_t expected)
{
	uint64_t value = 77;
	int got = store_parse_size(text, &value);

	CHECK(got == error, "'%s' gives %d", text, got);
	CHECK(value == (error ? 77 : expected), "'%s' is %llu", text, (unsigned long long)value);
}

static void time_is(const char *text, int error, uint64_t expected)
{
	uint64_t value = 77;
	int got = store_parse_time(text, &value);

	CHECK(got == error, "'%s' gives %d", text, got);
	CHECK(value == (error ? 77 : expected), "'%s' is %llu", text, (unsigned long long)value);
}

static void test_numbers(void)
{
	size_is("0", 0, 0);
	size_is("1", 0, 1);
	size_is("4K", 0, 4096);
	size_is("1.5G", 0, 3ull << 29);
	size_is("1T", 0, 1ull << 40);
	size_is("0.5K", 0, 512);
	size_is("9223372036854775807", 0, INT64_MAX);
	size_is("9223372036854775808", -EINVAL, 0);
	size_is("8388608T", -EINVAL, 0);
	size_is("99999999999999999999999999999999999999999", -EINVAL, 0);
	size_is("", -EINVAL, 0);
	size_is("-1", -EINVAL, 0);
	size_is("+1", -EINVAL, 0);
	size_is(" 1", -EINVAL, 0);
	size_is("1 K", -EINVAL, 0);
	size_is("K", -EINVAL, 0);
	size_is("1.5", -EINVAL, 0);
	size_is("1.K", -EINVAL, 0);
	size_is("1X", -EINVAL, 0);
	size_is("1KK", -EINVAL, 0);
	size_is("1.00000000000000000000000000001K", -EINVAL, 0);
	time_is("0", 0, 0);
	time_is("200us", 0, 200000);
	time_is("1.5ms", 0, 1500000);
	time_is("2s", 0, 2000000000);
	time_is("7ns", 0, 7);
	time_is("5", -EINVAL, 0);
	time_is("5m", -EINVAL, 0);
	time_is("5S", -EINVAL, 0);
	time_is("ms", -EINVAL, 0);
	time_is("1e3ms", -EINVAL, 0);
	time_is("9999999999999999s", -EINVAL, 0);
}

static void test_parameters(void)
{
	const char *cursor = "?a=1&&b=x%20y&c=";
	char key[8], value[8];
	int error = 0;

	CHECK(store_next_parameter(&cursor, key, 8, value, 8, &error), "first");
	CHECK(!strcmp(key, "a") && !strcmp(value, "1"), "%s=%s", key, value);
	CHECK(store_next_parameter(&cursor, key, 8, value, 8, &error), "second");
	CHECK(!strcmp(key, "b") && !strcmp(value, "x y"), "%s=%s", key, value);
	CHECK(store_next_parameter(&cursor, key, 8, value, 8, &error), "empty value");
	CHECK(!strcmp(key, "c") && !*value, "%s=%s", key, value);
	CHECK(!store_next_parameter(&cursor, key, 8, value, 8, &error) && !error, "%d", error);

	static const char *const bad[] = {"a",     "=1",    "a=%",        "a=%4",
					  "a=%zz", "a=%00", "a=12345678", "12345678=1"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cursor = bad[i];
		error = 0;
		CHECK(!store_next_parameter(&cursor, key, 8, value, 8, &error) && error < 0,
		      "'%s' is taken", bad[i]);
		CHECK(cursor == bad[i], "'%s': the cursor is not at the bad parameter", bad[i]);
	}
	cursor = NULL;
	error = 0;
	CHECK(!store_next_parameter(&cursor, key, 8, value, 8, &error) && !error, "NULL");
}

/* Check that opening `uri` fails with `error` and a text that contains `words`. */
static void refused(const char *uri, int error, const char *words)
{
	struct fm_store *store = (struct fm_store *)&store;
	char text[400] = "";
	int got = store_open(uri, 0, text, sizeof(text), &store);

	CHECK(got == error, "'%s' gives %d: %s", uri, got, text);
	CHECK(strstr(text, words), "'%s' says '%s', without '%s'", uri, text, words);
	CHECK(!strchr(text, '\n'), "'%s': more than a line", uri);
	CHECK(store == (struct fm_store *)&store, "'%s' failed, but wrote its result", uri);
	got = store_open(uri, 0, NULL, 0, &store);
	CHECK(got == error, "'%s' without a text gives %d", uri, got);
}

static struct fm_store *opened(const char *uri)
{
	struct fm_store *store = NULL;
	char text[400] = "";
	int error = store_open(uri, 0, text, sizeof(text), &store);

	CHECK(!error && store, "'%s' gives %d: %s", uri, error, text);
	return store;
}

static void opens(const char *uri, const char *name, uint64_t size, uint64_t deadline_ns)
{
	struct fm_store *store = opened(uri);

	CHECK(!strcmp(store->ops->name, name), "'%s' is a %s", uri, store->ops->name);
	CHECK(store_size(store) == size, "'%s': %llu bytes", uri,
	      (unsigned long long)store_size(store));
	CHECK(store->deadline_ns == deadline_ns, "'%s': deadline", uri);
	store->ops->close(store);
}

static void make_file(const char *name, size_t size)
{
	int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	CHECK(fd >= 0 && !ftruncate(fd, (off_t)size), "%s: %s", name, strerror(errno));
	close(fd);
}

static void test_opens(void)
{
	char text[200];

	make_file("plain", 5);
	make_file("what?", 6);
	make_file("plain?direct=0", 10);
	make_file("x%41", 11);
	make_file("memory:1M.db", 12);
	make_file("a&b", 13);
	make_file("100%A", 14);
	make_file("nosuch:thing", 7);
	make_file("100%", 8);
	make_file("a b", 9);
	make_file("empty", 0);
	opens("plain", "file", 5, 0);
	opens("./plain", "file", 5, 0);
	opens("file:plain", "file", 5, 0);
	opens("file:plain?direct=0&deadline=2s", "file", 5, 2000000000);
	opens("file:plain?direct=1", "file", 5, 0);
	opens("what?", "file", 6, 0);
	opens("plain?direct=0", "file", 10, 0);
	opens("x%41", "file", 11, 0);
	opens("file:x%2541", "file", 11, 0);
	opens("faulty:x%2541", "faulty", 11, 0);
	opens("./memory:1M.db", "file", 12, 0);
	opens("file:memory:1M.db", "file", 12, 0);
	opens("faulty:./memory:1M.db", "faulty", 12, 0);
	opens("a&b", "file", 13, 0);
	opens("100%A", "file", 14, 0);
	opens("file:what%3f", "file", 6, 0);
	opens("nosuch:thing", "file", 7, 0);
	opens("file:nosuch:thing", "file", 7, 0);
	opens("100%", "file", 8, 0);
	opens("file:100%25", "file", 8, 0);
	opens("file:a%20b", "file", 9, 0);
	opens("file:a b", "file", 9, 0);
	opens("empty", "file", 0, 0);
	snprintf(text, sizeof(text), "file://%s/plain", dir);
	opens(text, "file", 5, 0);
	opens("memory:1T", "memory", 1ull << 40, 0);
	opens("memory:0", "memory", 0, 0);
	opens("memory:64K?seed=7&deadline=1.5ms", "memory", 65536, 1500000);
	opens("faulty:memory:64K", "faulty", 65536, 0);
	opens("faulty:plain?delay=1ms&direct=0&deadline=1s", "faulty", 5, 1000000000);
	opens("faulty:faulty:file:plain?delay=1ms..2ms&error-at=none&error=ENOSPC", "faulty", 5, 0);
	opens("faulty:memory:1?error=5&rate=1M&iops=100&error-every=3&short-every=2&stuck=1&seed=9",
	      "faulty", 1, 0);
}

static void test_refusals(void)
{
	refused("", -EINVAL, "empty URI");
	refused("missing", -ENOENT, "missing: No such file or directory");
	refused("/missing/100%", -ENOENT, "/missing/100%: No such file or directory");
	refused("file:missing", -ENOENT, "missing: No such file or directory");
	refused("plain/below", -ENOTDIR, "Not a directory");
	refused("file:", -EINVAL, "has no path; give file:PATH");
	refused("file:100%", -EINVAL, "write %25");
	refused("nosuch:other", -ENOENT,
		"nosuch:other: No such file or directory (taken as a plain path, because");
	refused("http://localhost/", -ENOENT, "only file:, memory: and faulty: are schemes");
	refused("plain%41", -ENOENT, "plain%41: No such file or directory");
	refused("what%3F", -ENOENT, "what%3F: No such file or directory");
	refused("missing?record=x", -ENOENT, "a plain path has no parameters");
	refused("faulty:nosuch:x", -ENOENT, "nosuch:x: No such file");
	refused("FILE:plain", -ENOENT, "FILE:plain: No such file");
	refused("memory:1M.db", -EINVAL, "the path of a file with this name is ./memory:1M.db");
	refused("faulty:missing", -ENOENT, "missing: No such file");
	refused("faulty:memory:1M?dely=1ms", -EINVAL,
		"faulty:…: unknown parameter 'dely'; known parameters: delay, rate, iops, error, "
		"error-every, error-at, short-every, stuck, seed, write-delay, write-error, write-error-every, "
		"write-error-at, write-short-every, write-stuck, flush-delay, flush-error, flush-error-every, "
		"flush-stuck, lose, deadline, hotset, record");
	refused("file:plain?delay=1ms", -EINVAL,
		"unknown parameter 'delay'; known parameters: direct, deadline, hotset, record");
	refused("file:plain?direct", -EINVAL, "bad parameter 'direct'");
	refused("file:plain?direct=2", -EINVAL, "bad direct '2'");
	refused("file:plain?deadline=5", -EINVAL, "bad deadline '5'");
	refused("faulty:plain?delay=5", -EINVAL, "bad delay '5'");
	refused("faulty:plain?delay=5ms..1ms", -EINVAL, "bad delay");
	refused("faulty:plain?error=EWHAT", -EINVAL, "bad error 'EWHAT'");
	refused("faulty:plain?error=0", -EINVAL, "bad error '0'");
	refused("faulty:plain?stuck=2", -EINVAL, "bad stuck '2'");
	refused("memory:", -EINVAL, "bad size");
	refused("memory:12Q", -EINVAL, "bad size");
	refused("memory:1M?seed=x", -EINVAL, "bad seed 'x'");
	refused("faulty:faulty:faulty:faulty:memory:1", -EINVAL, "more than 3 filters");
	refused(dir, -EISDIR, "a directory");
	refused("/dev/null", -ENODEV, "a character device");
	CHECK(!mkfifo("fifo", 0600), "%s", strerror(errno));
	refused("fifo", -ENODEV, "a fifo");
	if (geteuid()) {
		make_file("closed", 1);
		CHECK(!chmod("closed", 0), "%s", strerror(errno));
		refused("closed", -EACCES, "closed: Permission denied");
	}
}

/* `seed` reaches the store below the filter too: the filter does not change the bytes. */
static void test_seed(void)
{
	struct fm_store *plain = opened("memory:64?seed=5");
	struct fm_store *filtered = opened("faulty:memory:64?seed=5");
	struct fm_store *other = opened("memory:64?seed=6");
	char a[64], b[64], c[64];
	struct iovec iov[3] = {{a, 64}, {b, 64}, {c, 64}};
	size_t done;

	CHECK(!plain->ops->read(plain, &iov[0], 1, 0, &done) && done == 64, "%zu", done);
	CHECK(!filtered->ops->read(filtered, &iov[1], 1, 0, &done) && done == 64, "%zu", done);
	CHECK(!other->ops->read(other, &iov[2], 1, 0, &done) && done == 64, "%zu", done);
	CHECK(!memcmp(a, b, 64), "the filter changed the bytes");
	CHECK(memcmp(a, c, 64), "the seed changes nothing");
	plain->ops->close(plain);
	filtered->ops->close(filtered);
	other->ops->close(other);
}

static void value(const char *uri, const char *key, const char *want)
{
	char got[64] = "what was there";
	bool found = store_uri_value(uri, key, got, sizeof(got));

	CHECK(found == (want != NULL), "'%s' has %s a %s", uri, found ? "" : "not", key);
	CHECK(!strcmp(got, want ? want : ""), "'%s': %s is '%s'", uri, key, got);
}

static void name(const char *uri, const char *want)
{
	char got[1000] = "", whole[1000];
	int error = store_uri_name(uri, got, sizeof(got));

	snprintf(whole, sizeof(whole), want, dir);
	CHECK(!error && !strcmp(got, whole), "'%s' is %d '%s', not '%s'", uri, error, got, whole);
}

/* Parameters of the library, which stores do not see, and the object's name without parameters. */
static void test_common(void)
{
	char newline[300];

	opens("file:plain?hotset=a&direct=0&record=b", "file", 5, 0);
	opens("faulty:memory:64K?hotset=a&delay=1ms", "faulty", 65536, 0);
	refused("memory:1M?record=", -EINVAL, "record is empty");
	refused("file:plain?hotset", -EINVAL, "bad parameter 'hotset'");
	value("file:plain?hotset=a&direct=0&record=b%26c", "hotset", "a");
	value("file:plain?hotset=a&direct=0&record=b%26c", "record", "b&c");
	value("file:plain?hotset=a", "record", NULL);
	value("faulty:memory:64K?delay=1ms&record=x", "record", "x");
	value("plain", "hotset", NULL);
	value("plain?hotset=a", "hotset", NULL);
	value("plain?record=a", "record", NULL);
	value("what?", "hotset", NULL);
	name("file:plain?hotset=a", "file:%s/plain");
	name("file:./plain?direct=0", "file:%s/plain");
	name("what?", "file:%s/what?");
	name("100%", "file:%s/100%%25");
	name("plain?direct=0", "file:%s/plain?direct=0");
	name("faulty:memory:64K?delay=1ms&seed=3", "faulty:memory:64K");
	snprintf(newline, sizeof(newline), "new\nline");
	make_file(newline, 1);
	name(newline, "file:%s/new%%0Aline");
	unlink(newline);
}

int main(void)
{
	static const char *const names[] = {"plain", "what?", "nosuch:thing", "100%",
					    "a b",   "empty", "fifo",         "closed",
					    "plain?direct=0", "x%41", "memory:1M.db", "a&b", "100%A"};

	CHECK(mkdtemp(dir) && !chdir(dir), "%s: %s", dir, strerror(errno));
	test_numbers();
	test_parameters();
	test_opens();
	test_refusals();
	test_seed();
	test_common();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(names[i]);
	CHECK(!chdir("/") && !rmdir(dir), "%s: %s", dir, strerror(errno));
	return 0;
}
