/* SPDX-License-Identifier: MIT */
/*
 * URIs: which store a text names, and with which parameters. Owns no state and no lock.
 * SCHEME:REST?KEY=VALUE&..., where a scheme may be a filter (faulty:) over another URI. A
 * parameter belongs to the outermost store of the chain that knows the parameter (`seed`: to
 * all stores that do).
 *
 * A text that does not begin with a known scheme is a plain path: the name of a file, byte for
 * byte, without parameters. Whether such a file exists changes nothing. Behind a scheme all
 * bytes are percent-decoded, and '?' begins the parameters. May call: the stores' open
 * functions, libc. Ordinary context only, except store_read_full() and store_write_full().
 */
#include "store/store.h"
#include "store/text.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_LEN     64
#define FILTERS_MAX 4

/* ------------------------------------------------------------------ the stores there are */

struct store_kind {
	const char *scheme;
	int (*open)(const char *text, unsigned flags, const char *parameters, char *error_text,
		    size_t error_text_len, struct fm_store **ret_store);
	int (*open_over)(struct fm_store *inner, const char *parameters, char *error_text,
			 size_t error_text_len, struct fm_store **ret_store);
	const char *const *parameters;
};

static const char *const file_parameters[] = {"direct", NULL};
static const char *const memory_parameters[] = {"seed", NULL};
static const char *const faulty_parameters[] = {
	"delay",    "rate",        "iops",  "error", "error-every",
	"error-at", "short-every", "stuck", "seed",  "write-delay", "write-error",
	"write-error-every", "write-error-at", "write-short-every", "write-stuck",
	"flush-delay", "flush-error", "flush-error-every", "flush-stuck", "lose", NULL,
};

static const struct store_kind kinds[] = {
	{"file", store_file_open, NULL, file_parameters},
	{"memory", store_memory_open, NULL, memory_parameters},
	{"faulty", NULL, store_faulty_open, faulty_parameters},
};

static const struct store_kind *kind_find(const char *scheme, size_t len)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strlen(kinds[i].scheme) == len && !memcmp(kinds[i].scheme, scheme, len))
			return &kinds[i];
	return NULL;
}

static bool kind_knows(const struct store_kind *kind, const char *key)
{
	for (const char *const *name = kind->parameters; *name; name++)
		if (!strcmp(*name, key))
			return true;
	return false;
}

/* Find the store whose scheme, and a ':', `text` begins with. NULL: `text` is a plain path. */
static const struct store_kind *kind_of(const char *text)
{
	const char *colon = strchr(text, ':');

	return colon ? kind_find(text, (size_t)(colon - text)) : NULL;
}

/* ------------------------------------------------------------------ opening */

/* A parsed URI. chain[0] is the outermost store, chain[depth - 1] the store that has bytes. */
struct parsed {
	const char *uri;
	unsigned flags; /* enum fm_store_open */
	char *error_text;
	size_t error_text_len;
	const struct store_kind *chain[FILTERS_MAX + 1];
	unsigned depth;
	char *parameters[FILTERS_MAX + 1]; /* each strlen(uri) + 1 bytes */
	char *text;                        /* the rest of the URI for the innermost store, decoded */
	uint64_t deadline_ns;
	const char *wanted; /* the wanted parameter of the library, and where its value goes */
	char *value;
	size_t value_len;
};

/* Parameters of the library itself, which every URI may have: names of files. */
static const char *const common_parameters[] = {"hotset", "record"};

static bool is_common(const char *key)
{
	for (size_t i = 0; i < sizeof(common_parameters) / sizeof(common_parameters[0]); i++)
		if (!strcmp(common_parameters[i], key))
			return true;
	return false;
}

static int take_common(struct parsed *p, const char *key, const char *value)
{
	if (!*value)
		return store_say(-EINVAL, p->error_text, p->error_text_len,
				 "%s:…: %s is empty: give the name of a file", p->chain[0]->scheme,
				 key);
	if (p->wanted && !strcmp(p->wanted, key) && strlen(value) < p->value_len)
		strcpy(p->value, value);
	return 0;
}

/* Collect the schemes in p->chain, outermost first. *ret_rest is the text behind the last
 * scheme. */
static int parse_schemes(struct parsed *p, const char **ret_rest)
{
	const char *at = p->uri;

	for (;;) {
		const struct store_kind *kind = kind_of(at);

		if (!kind) {
			p->chain[p->depth++] = kind_find("file", 4);
			break;
		}
		p->chain[p->depth++] = kind;
		at += strlen(kind->scheme) + 1;
		if (kind->open)
			break;
		if (p->depth == FILTERS_MAX)
			return store_say(-EINVAL, p->error_text, p->error_text_len,
					 "%s: more than %d filters", p->uri, FILTERS_MAX - 1);
	}
	*ret_rest = at;
	return 0;
}

/* List "delay, rate, ..., deadline" of all the stores in the chain. */
static void list_known(const struct parsed *p, char *out, size_t out_len)
{
	size_t used = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < p->depth; i++)
		for (const char *const *name = p->chain[i]->parameters; *name; name++) {
			bool is_new = true;

			for (unsigned j = 0; j < i; j++)
				is_new &= !kind_knows(p->chain[j], *name);
			if (is_new && used < out_len)
				used += (size_t)snprintf(out + used, out_len - used, "%s, ", *name);
		}
	if (used < out_len)
		snprintf(out + used, out_len - used, "deadline, hotset, record");
}

/* Add raw[0..len) to a store's own parameters. */
static void parameters_add(char *parameters, const char *raw, size_t len)
{
	size_t used = strlen(parameters);

	if (used)
		parameters[used++] = '&';
	memcpy(parameters + used, raw, len);
	parameters[used + len] = '\0';
}

/* Hand a parameter to the outermost store that knows it. `seed` goes to all stores that know
 * it: a filter over memory: leaves the bytes as they are without the filter. */
static bool parameter_place(struct parsed *p, const char *key, const char *raw, size_t raw_len)
{
	bool found = false;

	for (unsigned i = 0; i < p->depth; i++) {
		if (!kind_knows(p->chain[i], key))
			continue;
		parameters_add(p->parameters[i], raw, raw_len);
		found = true;
		if (strcmp(key, "seed"))
			break;
	}
	return found;
}

static int parse_parameters(struct parsed *p, const char *query)
{
	const char *scheme = p->chain[0]->scheme, *cursor = query, *raw = query;
	char key[KEY_LEN], value[PATH_MAX], known[512];
	int error = 0;

	while (store_next_parameter(&cursor, key, sizeof(key), value, sizeof(value), &error)) {
		raw += strspn(raw, "?&");
		if (!strcmp(key, "deadline")) {
			if (store_parse_time(value, &p->deadline_ns))
				return store_say(-EINVAL, p->error_text, p->error_text_len,
						 "%s:…: bad deadline '%s': write a time such as "
						 "500ms or 2s",
						 scheme, value);
		} else if (is_common(key)) {
			int bad = take_common(p, key, value);
			if (bad)
				return bad;
		} else if (!parameter_place(p, key, raw, (size_t)(cursor - raw))) {
			list_known(p, known, sizeof(known));
			return store_say(-EINVAL, p->error_text, p->error_text_len,
					 "%s:…: unknown parameter '%s'; known parameters: %s", scheme, key,
					 known);
		}
		raw = cursor;
	}
	if (error)
		return store_say(-EINVAL, p->error_text, p->error_text_len,
				 "%s:…: bad parameter '%.*s': write KEY=VALUE, with %%25 for a "
				 "percent sign",
				 scheme, (int)strcspn(cursor, "&"), cursor);
	return 0;
}

/* Parse `rest`, which follows the schemes: p->text is the text before the '?', decoded. A plain
 * path stays as it is. */
static int parse_text(struct parsed *p, const char *rest)
{
	const char *query = strchr(rest, '?');
	size_t len = query ? (size_t)(query - rest) : strlen(rest);
	int error;

	if (rest == p->uri) {
		strcpy(p->text, rest);
		return 0;
	}
	error = text_percent_decode(rest, len, p->text, strlen(p->uri) + 1);
	if (error)
		return store_say(error, p->error_text, p->error_text_len,
				 "%s: bad percent escape: write %%25 for a percent sign", p->uri);
	return query ? parse_parameters(p, query) : 0;
}

/* Open the innermost store, then each filter over it. A filter that fails leaves its inner store.
 */
static int open_chain(struct parsed *p, struct fm_store **ret_store)
{
	struct fm_store *store = NULL;
	unsigned i = p->depth - 1;
	int error;

	error = p->chain[i]->open(p->text, p->flags, p->parameters[i], p->error_text, p->error_text_len,
				  &store);
	if (!error && p->flags & FM_STORE_OPEN_WRITE && !(store->caps & FM_STORE_WRITE)) {
		error = store_say(-EOPNOTSUPP, p->error_text, p->error_text_len,
				  "%s: a %s store cannot be written to", p->uri, p->chain[i]->scheme);
		store->ops->close(store);
	}
	if (error)
		return error;
	store->deadline_ns = p->deadline_ns;
	while (i--) {
		struct fm_store_id id = store->id;

		error = p->chain[i]->open_over(store, p->parameters[i], p->error_text,
					       p->error_text_len, &store);
		if (error) {
			store->ops->close(store);
			return error;
		}
		store->id = id;
		store->id.filtered = true;
		store->deadline_ns = p->deadline_ns;
	}
	*ret_store = store;
	return 0;
}

/* Extend the message about a missing plain path: say why the text was taken for a path, if the
 * text looks like a URI. */
static void explain_plain(const struct parsed *p)
{
	const char *query = strchr(p->uri, '?'), *why = NULL;
	size_t used = p->error_text && p->error_text_len ? strlen(p->error_text) : 0;

	if (kind_of(p->uri) || !used)
		return;
	if (query && strchr(query, '='))
		why = "a plain path has no parameters: write file:PATH?KEY=VALUE";
	else if (strchr(p->uri, ':'))
		why = "taken as a plain path, because only file:, memory: and faulty: are schemes";
	if (why)
		snprintf(p->error_text + used, p->error_text_len - used, " (%s)", why);
}

/* Parse a URI. *ret_room holds the texts of `p`: the caller frees it. */
static int parse(struct parsed *p, char **ret_room)
{
	const char *rest = p->uri;
	size_t len;
	char *room;
	int error;

	*ret_room = NULL;
	if (!p->uri || !*p->uri)
		return store_say(-EINVAL, p->error_text, p->error_text_len,
				 "empty URI: give file:PATH, memory:SIZE, faulty:URI or a path");
	len = strlen(p->uri) + 1;
	*ret_room = room = calloc(FILTERS_MAX + 2, len);
	if (!room)
		return store_say(-ENOMEM, p->error_text, p->error_text_len, "%s: %s", p->uri,
				 strerror(ENOMEM));
	p->text = room;
	for (unsigned i = 0; i <= FILTERS_MAX; i++)
		p->parameters[i] = room + (i + 1) * len;
	error = parse_schemes(p, &rest);
	return error ? error : parse_text(p, rest);
}

int store_open(const char *uri, unsigned flags, char *error_text, size_t error_text_len,
	       struct fm_store **ret_store)
{
	struct parsed p = {.uri = uri,
			   .flags = flags,
			   .error_text = error_text,
			   .error_text_len = error_text_len};
	char *room;
	int error = parse(&p, &room);

	if (!error && flags & FM_STORE_OPEN_CREATE && !(flags & FM_STORE_OPEN_WRITE))
		error = store_say(-EINVAL, error_text, error_text_len,
				  "%s: a file that may be created must be opened for writing; add "
				  "FM_FILE_WRITE", uri);
	if (!error) {
		error = open_chain(&p, ret_store);
		if (error == -ENOENT)
			explain_plain(&p);
	}
	free(room);
	return error;
}

bool store_uri_value(const char *uri, const char *key, char *value, size_t value_len)
{
	struct parsed p = {.uri = uri, .wanted = key, .value = value, .value_len = value_len};
	char *room;

	value[0] = '\0';
	(void)parse(&p, &room);
	free(room);
	return value[0] != '\0';
}

/* Write text escaped, so that the text stays on one line. */
static size_t put_escaped(const char *text, char *out, size_t out_len)
{
	size_t used = 0;

	for (; *text && used + 4 <= out_len; text++) {
		unsigned char c = (unsigned char)*text;
		if (c < 0x20 || c == 0x7f || c == '%')
			used += (size_t)snprintf(out + used, out_len - used, "%%%02X", c);
		else
			out[used++] = (char)c;
	}
	out[used] = '\0';
	return used;
}

int store_uri_name(const char *uri, char *name, size_t name_len)
{
	struct parsed p = {.uri = uri};
	char *room, *whole = NULL;
	size_t used = 0;
	int error = parse(&p, &room);

	for (unsigned i = 0; !error && i < p.depth; i++)
		used += (size_t)snprintf(name + used, name_len - used, "%s:", p.chain[i]->scheme);
	if (!error && !strcmp(p.chain[p.depth - 1]->scheme, "file"))
		whole = realpath(p.text, NULL);
	if (!error)
		put_escaped(whole ? whole : p.text, name + used, name_len - used);
	free(whole);
	free(room);
	return error;
}
